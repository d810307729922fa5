/** Evaluation: the mean loss over consecutive windows of a store. */
import { z } from 'zod'
import { KindlingError, cancelled } from '../errors'
import { limits } from '../limits'
import { abortSignal, callback, checked } from '../options'
import { TokenStore } from '../token-store'
import { Transformer } from '../transformer'

/** Options for an evaluation. */
export interface EvaluateOptions {
  /** Tokens per window. */
  seqLength: number
  /** Windows per batch. */
  batchSize: number
  /** Tokens to evaluate, at most. Default: all. */
  maxTokens?: number | undefined
  /** Receives the tokens done and those to do, after each batch. */
  onProgress?: ((tokensDone: number, tokensTotal: number) => void) | undefined
  /** Ends the call with `ERR_CANCELLED`. */
  signal?: AbortSignal | undefined
}

const schema = z.strictObject({
  seqLength: limits.positions,
  batchSize: limits.batch,
  maxTokens: z.int().min(1).optional(),
  onProgress: callback<(tokensDone: number, tokensTotal: number) => void>().optional(),
  signal: abortSignal.optional(),
})

/** The result of an evaluation. */
export interface Evaluation {
  /** Mean cross-entropy in nats per token. */
  loss: number
  /** exp(loss). */
  perplexity: number
  /** Loss in bits per byte of the text, null if the store does not record its bytes of text. */
  bitsPerByte: number | null
  /** Tokens evaluated. */
  tokens: number
}

/**
 * Computes the mean loss over consecutive windows of `seqLength` tokens from the start of the
 * store. An incomplete last window is dropped.
 *
 * @throws KindlingError `ERR_STORE_TOO_SHORT`, `ERR_NON_FINITE`, `ERR_CANCELLED`.
 */
export async function evaluate(
  model: Transformer,
  store: TokenStore,
  options: EvaluateOptions,
): Promise<Evaluation> {
  const {
    seqLength,
    batchSize,
    maxTokens = Infinity,
    onProgress,
    signal,
  } = checked('evaluate', schema, options)
  Transformer.toNative(model)
  TokenStore.toNative(store)
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
    onProgress?.((first + count) * seqLength, windows * seqLength)
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
