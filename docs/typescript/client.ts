/** A client of the service: its paths, bodies and answers are typed by `schema.ts`, which is made of the OpenAPI document. */
import createFetchClient, { type Client, type ClientOptions } from "openapi-fetch";
import type { components, paths } from "./schema.js";

/** Bodies and answers by their names in the OpenAPI document, such as `Schemas["RecommendationResponse"]`. */
export type Schemas = components["schemas"];

/** `token` is an API key, or the token of one user. */
export function createClient(baseUrl: string, token?: string, options: ClientOptions = {}): Client<paths> {
  const client = createFetchClient<paths>({ ...options, baseUrl });
  if (token !== undefined) {
    client.use({
      onRequest({ request }) {
        request.headers.set("Authorization", `Bearer ${token}`);
        return request;
      },
    });
  }
  return client;
}
