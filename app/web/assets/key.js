// The key that a service may ask for. It is kept for this tab, and sent to no other host.

const NAME = "warmstart.key";

/** The header that says who asks; none without a key. */
export function authorization() {
  const key = sessionStorage.getItem(NAME);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

export const keep = (key) => sessionStorage.setItem(NAME, key);
