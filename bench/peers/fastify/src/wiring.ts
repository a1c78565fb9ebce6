import { Redis } from "ioredis";
import pg from "pg";
import { GroupCommit } from "./group-commit.js";
import type { Journal } from "./journal.js";
import { OneByOne } from "./one-by-one.js";
import { openQueue } from "./queue.js";
import type { Settings } from "./settings.js";
import { StatementWrites, TransactionWrites } from "./writes.js";

// A prepared statement over arrays is planned once, while the tables are small; without these it would scan them whole
// for every batch later on.
const INDEXES_ONLY = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off";

export function openRedis(settings: Settings): Redis {
  // BullMQ asks for connections that retry for ever. enableAutoPipelining stays off: it took a tenth more processor time
  // in six runs of either, in turns, and made no difference to the throughput beyond their spread.
  return new Redis(settings.redisUrl, { maxRetriesPerRequest: null });
}

export function openPool(settings: Settings): pg.Pool {
  return new pg.Pool({
    connectionString: settings.databaseUrl,
    max: settings.databaseConnections,
    idleTimeoutMillis: 0,
    ...(settings.groupCommit ? { options: INDEXES_ONLY } : {}),
  });
}

export function openJournal(settings: Settings, pool: pg.Pool, redis: Redis): Journal {
  const queue = openQueue(redis, settings.keyPrefix);
  if (settings.groupCommit) return new GroupCommit(pool, redis, queue);
  const writes = settings.transactions ? new TransactionWrites(pool) : new StatementWrites(pool);
  return new OneByOne(writes, pool, redis, queue);
}
