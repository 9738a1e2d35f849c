/** Somebody who loves The Shining is recommended films, likes the first, and is recommended more. */
import { createClient, type Schemas } from "./client.js";

const client = createClient("http://127.0.0.1:8000");

function titles(slate: Schemas["RecommendationResponse"]): string[] {
  return slate.items.map((item) => `${item.title}: ${item.score.toFixed(1)}`);
}

const { data: slate, error } = await client.POST("/v1/cold-start/recommendations", {
  body: { domain: "movies", support: [{ item_id: "200", value: 5 }], k: 3 },
});
if (error) throw new Error(`${error.type}: ${error.title}`);
console.log(titles(slate));

const liked = slate.items[0];
if (liked) {
  await client.POST("/v1/interactions", {
    body: { interactions: [{ user_id: "grace", domain: "movies", item_id: liked.item_id, value: 5, slate_id: slate.slate_id }] },
    params: { header: { "idempotency-key": crypto.randomUUID() } },
  });
}
const next = await client.GET("/v1/users/{user_id}/recommendations", {
  params: { path: { user_id: "grace" }, query: { domain: "movies", k: 3 } },
});
if (next.data) console.log(titles(next.data));
