import type { Pool, PoolClient } from "pg";
import type { Writes } from "./one-by-one.js";
import type { Change, Order } from "./order.js";
import { ACCEPT, ADVANCE, INSERT_EVENT, INSERT_ORDER, UPDATE_ORDER } from "./sql.js";

function orderValues(order: Order): unknown[] {
  const { orderId, type, tokenIn, tokenOut, amountIn, slippageBps, createdAtMs } = order;
  return [orderId, type, tokenIn, tokenOut, amountIn, slippageBps, createdAtMs];
}

function rowValues({ orderId, status, timestampMs, details }: Change): unknown[] {
  const { venue, amountOut, txHash, error } = details;
  return [orderId, status, timestampMs, venue ?? null, amountOut ?? null, txHash ?? null, error ?? null];
}

/** The row and its event share one statement: one round trip and one commit for each event. */
export class StatementWrites implements Writes {
  constructor(private readonly pool: Pool) {}

  async insert(order: Order): Promise<void> {
    await this.pool.query({ name: "accept", text: ACCEPT, values: orderValues(order) });
  }

  async change(change: Change): Promise<number | undefined> {
    const values = [...rowValues(change), JSON.stringify(change.details)];
    const { rows } = await this.pool.query<{ seq: number }>({ name: "advance", text: ADVANCE, values });
    return rows[0]?.seq;
  }
}

/** The row, then its event, in a transaction: as repositories and ORMs do, and most systems. */
export class TransactionWrites implements Writes {
  constructor(private readonly pool: Pool) {}

  insert(order: Order): Promise<void> {
    return this.transaction(async (client) => {
      await client.query({ name: "insert_order", text: INSERT_ORDER, values: orderValues(order) });
      const values = [order.orderId, 1, "pending", "{}", order.createdAtMs];
      await client.query({ name: "insert_event", text: INSERT_EVENT, values });
    });
  }

  change(change: Change): Promise<number | undefined> {
    return this.transaction(async (client) => {
      const update = { name: "update_order", text: UPDATE_ORDER, values: rowValues(change) };
      const seq = (await client.query<{ seq: number }>(update)).rows[0]?.seq;
      if (seq === undefined) return undefined;
      const values = [change.orderId, seq, change.status, JSON.stringify(change.details), change.timestampMs];
      await client.query({ name: "insert_event", text: INSERT_EVENT, values });
      return seq;
    });
  }

  private async transaction<Result>(body: (client: PoolClient) => Promise<Result>): Promise<Result> {
    const client = await this.pool.connect();
    try {
      await client.query("begin");
      const result = await body(client);
      await client.query("commit");
      client.release();
      return result;
    } catch (error) {
      client.release(true); // closed, which rolls back
      throw error;
    }
  }
}
