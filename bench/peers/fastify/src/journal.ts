import type { Order, OrderEvent, Status, Details } from "./order.js";

/** Stores and publishes orders and their events; one event at a time, or by group commit. */
export interface Journal {
  /** Stores the order with its first event, queues it and publishes the event. */
  accept(order: Order): Promise<void>;
  /** Stores a status change with its event, and publishes it. */
  advance(orderId: string, status: Status, details: Details): Promise<void>;
  /** Every event of the order so far. */
  history(orderId: string): Promise<OrderEvent[]>;
}

export interface HistoryRow {
  readonly order_id: string;
  readonly seq: number;
  readonly status: Status;
  readonly data: unknown;
  readonly at_ms: string;
}

export function eventOfRow(row: HistoryRow): OrderEvent {
  return {
    orderId: row.order_id,
    seq: row.seq,
    status: row.status,
    timestampMs: Number(row.at_ms),
    data: row.data,
  };
}

export function firstEvent(order: Order): OrderEvent {
  return { orderId: order.orderId, seq: 1, status: "pending", timestampMs: order.createdAtMs, data: {} };
}

export function channelOf(orderId: string): string {
  return `orders:${orderId}`;
}
