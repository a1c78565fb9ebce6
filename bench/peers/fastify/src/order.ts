export type Status = "pending" | "routing" | "building" | "submitted" | "confirmed" | "failed";

export interface OrderRequest {
  readonly type: "market";
  readonly tokenIn: string;
  readonly tokenOut: string;
  readonly amountIn: number;
  readonly slippageBps: number;
}

/** The order that the API stores and the queue carries. */
export interface Order extends OrderRequest {
  readonly orderId: string;
  readonly createdAtMs: number;
}

/** The values that a status change stores in the order's row, and in the event's data. */
export interface Details {
  readonly venue?: string;
  readonly amountOut?: number;
  readonly txHash?: string;
  readonly error?: string;
  readonly [name: string]: unknown;
}

/** A status change that is to be stored. */
export interface Change {
  readonly orderId: string;
  readonly status: Status;
  readonly timestampMs: number;
  readonly details: Details;
}

export interface OrderEvent {
  readonly orderId: string;
  readonly seq: number;
  readonly status: Status;
  readonly timestampMs: number;
  readonly data: unknown;
}

export function isTerminal(status: Status): boolean {
  return status === "confirmed" || status === "failed";
}
