/** Evaluation: the mean loss over consecutive windows of a store. */
import { KindlingError, cancelled } from '../errors'
import type { TokenStore } from '../token-store'
import type { Transformer } from '../transformer'

/** What to evaluate on. */
export interface EvaluateOptions {
  /** Tokens a window. */
  seqLength: number
  /** Windows computed at once. */
  batchSize: number
  /** Tokens, at most. Default: all. */
  maxTokens?: number | undefined
  signal?: AbortSignal | undefined
}

/** The result of an evaluation. */
export interface Evaluation {
  /** Mean cross-entropy in nats a token. */
  loss: number
  /** e^loss. */
  perplexity: number
  /** Loss in bits for each byte of the text, null where the bytes are unknown. */
  bitsPerByte: number | null
  /** Tokens it is the mean of. */
  tokens: number
}

/**
 * The mean loss over consecutive windows of `seqLength` tokens from the store's start; what is left over is dropped.
 *
 * @throws KindlingError `ERR_STORE_TOO_SHORT`, `ERR_NON_FINITE`, `ERR_CANCELLED`.
 */
export async function evaluate(
  model: Transformer,
  store: TokenStore,
  options: EvaluateOptions,
): Promise<Evaluation> {
  const { seqLength, batchSize, maxTokens = Infinity, signal } = options
  const windows = Math.min(
    store.numWindows(seqLength),
    Math.max(1, Math.floor(maxTokens / seqLength)),
  )
  let sum = 0
  for (let first = 0; first < windows; first += batchSize) {
    if (signal?.aborted) throw cancelled(signal)
    const count = Math.min(batchSize, windows - first)
    sum +=
      count * (await model.loss(store.evaluationBatch({ seqLength, firstWindow: first, count })))
  }
  const loss = sum / windows
  if (!Number.isFinite(loss)) {
    throw new KindlingError(
      'ERR_NON_FINITE',
      'the validation loss is not finite; lower the learning rate',
    )
  }
  const { bytes } = store.metadata
  const bitsPerByte =
    bytes === null || bytes === 0 ? null : ((loss / Math.LN2) * store.length) / bytes
  return { loss, perplexity: Math.exp(loss), bitsPerByte, tokens: windows * seqLength }
}
