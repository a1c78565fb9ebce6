import { randomUUID } from "node:crypto";
import websocket from "@fastify/websocket";
import Fastify from "fastify";
import type { OrderRequest } from "./order.js";
import { readSettings } from "./settings.js";
import { SCHEMA } from "./sql.js";
import { Streams } from "./streams.js";
import { openJournal, openPool, openRedis } from "./wiring.js";

const ORDER_SCHEMA = {
  body: {
    type: "object",
    required: ["type", "tokenIn", "tokenOut", "amountIn"],
    properties: {
      type: { type: "string", enum: ["market"] },
      tokenIn: { type: "string", minLength: 1, maxLength: 64 },
      tokenOut: { type: "string", minLength: 1, maxLength: 64 },
      amountIn: { type: "number", exclusiveMinimum: 0 },
      slippageBps: { type: "integer", minimum: 1, maximum: 1000, default: 100 },
    },
  },
  response: {
    202: {
      type: "object",
      properties: { orderId: { type: "string" }, status: { type: "string" }, websocket: { type: "string" } },
    },
  },
} as const;

const STREAM_SCHEMA = {
  querystring: {
    type: "object",
    required: ["orderId"],
    properties: { orderId: { type: "string", format: "uuid" } },
  },
} as const;

const settings = readSettings();
const pool = openPool(settings);
await pool.query(SCHEMA);
const redis = openRedis(settings);
const journal = openJournal(settings, pool, redis);
const streams = new Streams(openRedis(settings), journal);

const app = Fastify({ logger: false });
await app.register(websocket);

app.get("/health", async () => ({ status: "ok" }));

app.post<{ Body: OrderRequest }>("/api/orders/execute", { schema: ORDER_SCHEMA }, async (request, reply) => {
  const { type, tokenIn, tokenOut, amountIn, slippageBps } = request.body;
  const orderId = randomUUID();
  await journal.accept({ orderId, createdAtMs: Date.now(), type, tokenIn, tokenOut, amountIn, slippageBps });
  return reply.code(202).send({ orderId, status: "pending", websocket: `/ws?orderId=${orderId}` });
});

app.get<{ Querystring: { orderId: string } }>(
  "/ws",
  { schema: STREAM_SCHEMA, websocket: true },
  (socket, request) => {
    streams.watch(request.query.orderId, socket).catch((error: unknown) => {
      console.error(error);
      socket.close(1011);
    });
  },
);

await app.listen({ host: "127.0.0.1", port: settings.port });

process.once("SIGTERM", () => {
  void app.close().finally(() => process.exit(0));
});
