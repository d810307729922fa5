/**
 * Chooses what `kindling train FILE` trains when no size is given. The vocabulary size follows from
 * the bytes of text. The model is the one from a short list that the text is large enough for and
 * that promises the lowest loss after ten minutes on this machine.
 *
 * The choice is a pure function of the corpus and an estimate of the machine's speed, so the same
 * command always chooses the same. docs/guides/your-own-corpus.md has the tables and their reasons.
 */
import { flopsPerToken } from '../account'

/** Target training time in seconds. */
export const AUTO_SECONDS = 600

/** Vocabulary sizes, each with the bytes of text from which it applies. */
const VOCABULARIES: readonly (readonly [bytes: number, vocabSize: number])[] = [
  [10e9, 32_000],
  [1e9, 16_384],
  [50e6, 8192],
  [10e6, 4096],
  [3e6, 2048],
  [0.5e6, 1024],
  [0, 512],
]

/** A model, its context and its peak learning rate. */
interface Rung {
  dModel: number
  numHeads: number
  dFf: number
  numLayers: number
  context: number
  lr: number
}

/** The models to choose from, smallest first. */
const LADDER: readonly Rung[] = [
  { dModel: 128, numHeads: 4, dFf: 344, numLayers: 4, context: 128, lr: 3e-3 },
  { dModel: 192, numHeads: 6, dFf: 512, numLayers: 4, context: 128, lr: 3e-3 },
  { dModel: 256, numHeads: 8, dFf: 688, numLayers: 6, context: 256, lr: 2e-3 },
  { dModel: 384, numHeads: 6, dFf: 1024, numLayers: 6, context: 256, lr: 1.5e-3 },
  { dModel: 512, numHeads: 8, dFf: 1344, numLayers: 8, context: 512, lr: 1e-3 },
  { dModel: 768, numHeads: 12, dFf: 2048, numLayers: 12, context: 512, lr: 6e-4 },
]

/** Maximum passes over the text. Without dropout, a small model memorizes it beyond this. */
export const MOST_PASSES = 8
/** Maximum parameters of a model per token of the text. */
const MOST_PARAMETERS_A_TOKEN = 6
/** Target number of updates, which decides the batch size. */
const STEPS = 2000
const BATCH_TOKENS = { fewest: 512, most: 32_768 }

/** Inputs of the choice. */
export interface Circumstances {
  /** Training tokens. */
  tokens: number
  /** Validation tokens. The context is kept short enough for a window of them. */
  validTokens: number
  vocabSize: number
  /** Speed of training on this machine in FLOP/s. */
  flops: number
}

/** A model and how long to train it. */
export interface AutoSizes extends Rung {
  /** Tokens per update. */
  batchTokens: number
  /** Tokens over all updates. */
  trainedTokens: number
  /** Estimated training time. */
  seconds: number
  /** What limits the training: passes over a small text, or time. */
  limit: 'passes' | 'time'
}

/** Returns the vocabulary size for this many bytes of text. */
export function vocabularyFor(bytes: number): number {
  return VOCABULARIES.find(([least]) => bytes >= least)![1]
}

/**
 * Chooses the model with the lowest predicted loss among those that the text is large enough for.
 * The smallest model is always a candidate.
 */
export function chooseSizes(circumstances: Circumstances): AutoSizes {
  const [smallest, ...others] = LADDER
  const taught = others.filter((rung) => isTaught(rung, circumstances))
  const rung = taught.reduce(
    (best, next) =>
      predictedLoss(next, circumstances) < predictedLoss(best, circumstances) ? next : best,
    smallest!,
  )
  return sizesOf(rung, circumstances)
}

function isTaught(rung: Rung, { tokens, vocabSize }: Circumstances): boolean {
  // The input embedding does not count: its rows are only looked up.
  const multiplied = blockParameters(rung) + vocabSize * rung.dModel
  return multiplied <= MOST_PARAMETERS_A_TOKEN * tokens
}

/**
 * Predicts the reducible part of the loss by the scaling law of Hoffmann et al. 2022
 * (arXiv:2203.15556, approach 3): 406.4 / N^0.34 + 410.7 / D^0.28, for N parameters of the blocks
 * and D training tokens. Used only to rank models.
 */
function predictedLoss(rung: Rung, circumstances: Circumstances): number {
  const seen = tokensSeen(rung, circumstances)
  return 406.4 / blockParameters(rung) ** 0.34 + 410.7 / seen ** 0.28
}

/**
 * Returns the tokens that a model would see: what ten minutes allow, but no more than `MOST_PASSES`
 * passes over the text.
 */
function tokensSeen(rung: Rung, circumstances: Circumstances): number {
  const affordable = (circumstances.flops * AUTO_SECONDS) / flopsOf(rung, circumstances)
  return Math.floor(Math.min(affordable, MOST_PASSES * circumstances.tokens))
}

function sizesOf(rung: Rung, circumstances: Circumstances): AutoSizes {
  const { tokens, validTokens, flops } = circumstances
  const trainedTokens = tokensSeen(rung, circumstances)
  const limit = trainedTokens < MOST_PASSES * tokens ? 'time' : 'passes'
  const batchTokens = Math.min(
    BATCH_TOKENS.most,
    Math.max(BATCH_TOKENS.fewest, powerOfTwo((trainedTokens / STEPS) * Math.SQRT2)),
  )
  const context = Math.max(8, Math.min(rung.context, powerOfTwo(validTokens - 1)))
  const seconds = (trainedTokens * flopsOf(rung, circumstances)) / flops
  return { ...rung, context, batchTokens, trainedTokens, seconds, limit }
}

function flopsOf(rung: Rung, { vocabSize }: Circumstances): number {
  return flopsPerToken({ ...rung, vocabSize })
}

function blockParameters({ dModel, dFf, numLayers }: Rung): number {
  return numLayers * (4 * dModel ** 2 + 3 * dModel * dFf)
}

/** Returns the largest power of two that is at most `value`. */
function powerOfTwo(value: number): number {
  return 2 ** Math.floor(Math.log2(Math.max(1, value)))
}
