/** The settings from the environment; read once at the start of a process. */
export interface Settings {
  readonly databaseUrl: string;
  readonly redisUrl: string;
  /** The prefix of the queue's keys. */
  readonly keyPrefix: string;
  readonly port: number;
  readonly concurrency: number;
  /** Factor on the venues' delays; 0 means no delay at all. */
  readonly delayScale: number;
  /** Whether waiting orders and events are written together. */
  readonly groupCommit: boolean;
  /** Whether an event takes a transaction of two statements instead of one statement; not with `groupCommit`. */
  readonly transactions: boolean;
  readonly databaseConnections: number;
}

export function readSettings(environment: NodeJS.ProcessEnv = process.env): Settings {
  return {
    databaseUrl: environment.DATABASE_URL ?? "postgresql://postgres@127.0.0.1:5432/postgres",
    redisUrl: environment.REDIS_URL ?? "redis://127.0.0.1:6379/0",
    keyPrefix: environment.REDIS_KEY_PREFIX ?? "bull",
    port: Number(environment.PORT ?? 3000),
    concurrency: Number(environment.WORKER_CONCURRENCY ?? 10),
    delayScale: Number(environment.DELAY_SCALE ?? 0),
    groupCommit: environment.GROUP_COMMIT === "1",
    transactions: environment.EVENT_WRITES === "transaction",
    databaseConnections: Number(environment.DATABASE_CONNECTIONS ?? 20),
  };
}
