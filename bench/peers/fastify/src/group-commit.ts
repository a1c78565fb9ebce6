import type { Redis } from "ioredis";
import type { Pool } from "pg";
import { Batcher } from "./batcher.js";
import { channelOf, eventOfRow, firstEvent, type HistoryRow, type Journal } from "./journal.js";
import type { Change, Details, Order, OrderEvent, Status } from "./order.js";
import { JOB_NAME, jobOptions, type OrderQueue } from "./queue.js";
import { ACCEPT_MANY, ADVANCE_MANY, HISTORY } from "./sql.js";

/** One statement, which is one commit, one pipeline of PUBLISH and one addBulk for all waiting orders or events. */
export class GroupCommit implements Journal {
  private readonly stored = new Batcher<Order, void>((orders) => this.store(orders));
  private readonly queued = new Batcher<Order, void>((orders) => this.enqueue(orders));
  private readonly changed = new Batcher<Change, number>((changes) => this.change(changes));
  private readonly read = new Batcher<string, OrderEvent[]>((orderIds) => this.histories(orderIds));

  constructor(
    private readonly pool: Pool,
    private readonly redis: Redis,
    private readonly queue: OrderQueue,
  ) {}

  async accept(order: Order): Promise<void> {
    await this.stored.add(order);
    // A batcher of its own: the next orders are stored while these are queued.
    await this.queued.add(order);
  }

  async advance(orderId: string, status: Status, details: Details): Promise<void> {
    const seq = await this.changed.add({ orderId, status, timestampMs: Date.now(), details });
    if (seq === 0) throw new Error(`order ${orderId} has ended already`);
  }

  history(orderId: string): Promise<OrderEvent[]> {
    return this.read.add(orderId);
  }

  private async store(orders: readonly Order[]): Promise<void[]> {
    await this.pool.query({
      name: "accept_many",
      text: ACCEPT_MANY,
      values: [
        orders.map((it) => it.orderId),
        orders.map((it) => it.type),
        orders.map((it) => it.tokenIn),
        orders.map((it) => it.tokenOut),
        orders.map((it) => it.amountIn),
        orders.map((it) => it.slippageBps),
        orders.map((it) => it.createdAtMs),
      ],
    });
    return [];
  }

  private async enqueue(orders: readonly Order[]): Promise<void[]> {
    const jobs = orders.map((order) => ({ name: JOB_NAME, data: order, opts: jobOptions(order) }) as const);
    await Promise.all([this.queue.addBulk(jobs), this.publish(orders.map(firstEvent))]);
    return [];
  }

  private async change(changes: readonly Change[]): Promise<number[]> {
    const { rows } = await this.pool.query<{ order_id: string; seq: number }>({
      name: "advance_many",
      text: ADVANCE_MANY,
      values: [
        changes.map((it) => it.orderId),
        changes.map((it) => it.status),
        changes.map((it) => it.timestampMs),
        changes.map((it) => it.details.venue ?? null),
        changes.map((it) => it.details.amountOut ?? null),
        changes.map((it) => it.details.txHash ?? null),
        changes.map((it) => it.details.error ?? null),
        changes.map((it) => JSON.stringify(it.details)),
      ],
    });
    const seqs = new Map(rows.map((row) => [row.order_id, row.seq]));
    const events = changes.flatMap(({ orderId, status, timestampMs, details }) => {
      const seq = seqs.get(orderId);
      return seq === undefined ? [] : [{ orderId, seq, status, timestampMs, data: details }];
    });
    // Not waited for: the next batch is written meanwhile, and one connection keeps the order.
    this.publish(events).catch((error: unknown) => console.error("publish failed", error));
    return changes.map((it) => seqs.get(it.orderId) ?? 0);
  }

  private async histories(orderIds: readonly string[]): Promise<OrderEvent[][]> {
    const { rows } = await this.pool.query<HistoryRow>({ name: "history", text: HISTORY, values: [orderIds] });
    const histories = new Map<string, OrderEvent[]>(orderIds.map((orderId) => [orderId, []]));
    for (const row of rows) histories.get(row.order_id)?.push(eventOfRow(row));
    return orderIds.map((orderId) => histories.get(orderId) ?? []);
  }

  private async publish(events: readonly OrderEvent[]): Promise<void> {
    if (events.length === 0) return;
    const pipeline = this.redis.pipeline();
    for (const event of events) pipeline.publish(channelOf(event.orderId), JSON.stringify(event));
    await pipeline.exec();
  }
}
