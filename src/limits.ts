/**
 * Schemas of sizes, shared by the library, the flags and config.json. The limits are far above any
 * practical size, and far below what could overflow or exhaust a machine before an error is
 * noticed.
 */
import { z } from 'zod'

/** A count of at least 1 and at most `largest`. */
const upTo = (largest: number): z.ZodInt => z.int().min(1).max(largest)

export const limits = {
  /** Threads of the engine. */
  threads: upTo(1024),
  /** Blocks of a model. */
  layers: upTo(1 << 14),
  /** Widths of a model, and numbers of its heads. */
  width: upTo(1 << 24),
  /** Ids of a vocabulary. */
  vocab: upTo(2 ** 31 - 1),
  /** Tokens of a window or a context. */
  positions: upTo(1 << 24),
  /** Windows of a batch, and batches of a step. */
  batch: upTo(1 << 20),
  /** Batches prepared ahead. */
  prefetch: z.int().min(0).max(1024),
} as const

/** Maximum number of tokens in a batch. */
export const MAX_BATCH_TOKENS = 2 ** 31 - 1
