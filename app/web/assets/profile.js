// What somebody has said in one domain, and what the service learnt from it. Kept in this page only.

/** Answers in one domain. */
export class Profile {
  constructor({ domain, title, min, max, kinds }) {
    Object.assign(this, { domain, title, min, max, kinds });
    this.restart();
  }

  restart() {
    this.answers = []; // {item_id, title, value}, oldest first
    this.unknown = []; // ids: "don't know" tells who somebody is, and is sent
    this.aside = []; // ids: skipped, which tells nothing
    this.history = []; // a point per number of answers: {count, before, after, std, moved, means}
    this.sample = null; // ids by which points are compared
  }

  /** The values that the scale offers: whole steps where there are few, else five of them. */
  get steps() {
    const span = this.max - this.min;
    const step = Number.isInteger(span) && span <= 10 ? 1 : span / 4;
    return Array.from({ length: Math.round(span / step) + 1 }, (_, i) => this.min + i * step);
  }

  answer(item, value) {
    this.forget(item.item_id);
    this.answers.push({ item_id: item.item_id, title: item.title, value });
  }

  forget(id) {
    this.answers = this.answers.filter((answer) => answer.item_id !== id);
  }

  /** The answers as a support set of another domain's request. */
  get support() {
    return this.answers.map(({ item_id, value }) => ({ item_id, value, domain: this.domain }));
  }

  /** Keep what a slate and the expected ratings of the sample say of the service after the latest answer. */
  record(parts, predictions) {
    const count = this.answers.length;
    this.history = this.history.filter((point) => point.count < count);
    const means = predictions.map((prediction) => prediction.rating);
    const stds = predictions.map((prediction) => prediction.std).filter((std) => std !== null);
    const last = this.history.at(-1);
    this.history.push({
      count,
      before: error(parts, "loss_before"),
      after: error(parts, "loss_after"),
      std: stds.length ? mean(stds) : null,
      moved: last && last.means.length === means.length ? mean(means.map((m, i) => Math.abs(m - last.means[i]))) : null,
      means,
    });
  }
}

/** Root mean squared error on the support, over the parts that foretell ratings, by their weights. */
function error(parts, loss) {
  const told = parts.filter((part) => part.weight > 0 && typeof part.adaptation?.[loss] === "number");
  const weight = told.reduce((sum, part) => sum + part.weight, 0);
  return weight ? Math.sqrt(told.reduce((sum, part) => sum + part.weight * part.adaptation[loss], 0) / weight) : null;
}

const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

/** The words that describe an item: values of its attributes that are lists, else of those that are categories. */
export function words(attributes, kinds) {
  const of = (kind) => Object.keys(kinds).filter((name) => kinds[name] === kind).flatMap((name) => attributes[name] ?? []);
  const listed = of("multi");
  return listed.length ? listed : of("categorical");
}

/** The rated items that share most with an item: [{answer, shared}], nearest first, at most two. */
export function nearest(item, rated) {
  const own = new Set(item.words);
  return rated
    .map(({ answer, words }) => {
      const shared = words.filter((word) => own.has(word));
      return { answer, shared, likeness: shared.length / (own.size + words.length - shared.length || 1) };
    })
    .filter(({ likeness }) => likeness > 0)
    .sort((a, b) => b.likeness - a.likeness)
    .slice(0, 2);
}
