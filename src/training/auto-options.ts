/**
 * Fills in the options of `kindling train FILE` when none of them says what model to train. Options
 * that the user gives are kept. The chosen ones are recorded in config.json like any other.
 */
import { stat } from 'node:fs/promises'
import { expandFiles } from '../corpus-files'
import { fileOperation } from '../files'
import { availableThreads } from '../system'
import { chooseSizes, vocabularyFor, type AutoSizes } from './auto-sizes'
import type { ResolvedOptions, TrainOptions } from './config'
import { trainingTokens, type DataSource } from './data-source'
import { machineSpeed, type MachineSpeed } from './machine-speed'
import { checkSizes } from './resolve-options'

/** Estimated bytes of text per byte on disk, by file extension. */
const EXPANSION: readonly (readonly [RegExp, number])[] = [
  [/\.(gz|zst)$/i, 3],
  [/\.parquet$/i, 2],
]
/** Evaluations, samples and checkpoints per run. */
const EVALUATIONS = 10

/** Returns the options with a vocabulary for the corpus, unless a tokenizer is given. */
export async function withAutoVocabulary(resolved: ResolvedOptions): Promise<ResolvedOptions> {
  const bytes = await textBytes(resolved.options.corpus ?? [])
  return { ...resolved, options: { ...resolved.options, vocabSize: vocabularyFor(bytes) } }
}

/**
 * Returns the options with a model and a schedule that suit the data and this machine. Reports the
 * choice and its reasons through `message`.
 */
export function withAutoSizes(
  resolved: ResolvedOptions,
  data: DataSource,
  message: (text: string) => void,
): ResolvedOptions {
  const { options, given } = resolved
  const asked = given.has('dtype') ? options.dtype : undefined
  const speed = machineSpeed(options.device, options.threads ?? availableThreads(), asked)
  const tokens = trainingTokens(data)
  const vocabSize = data.tokenizer?.vocabSize ?? options.vocabSize!
  const validTokens = data.valid?.length ?? Infinity
  const sizes = chooseSizes({ tokens, validTokens, vocabSize, flops: speed.flops })
  const chosen = Object.entries(optionsOf(sizes, speed, resolved)).filter(
    ([name]) => !given.has(name),
  )
  const merged = { ...options, ...Object.fromEntries(chosen) } as TrainOptions
  checkSizes(merged)
  for (const line of reasons(merged, sizes, speed, tokens)) message(line)
  return { ...resolved, options: merged }
}

async function textBytes(names: readonly string[]): Promise<number> {
  let bytes = 0
  for (const file of await expandFiles(names)) {
    const { size } = await fileOperation('read', file, () => stat(file))
    bytes += size * (EXPANSION.find(([ending]) => ending.test(file))?.[1] ?? 1)
  }
  return bytes
}

function optionsOf(
  sizes: AutoSizes,
  { dtype }: MachineSpeed,
  { options, given }: ResolvedOptions,
): Partial<TrainOptions> {
  const { dModel, numHeads, dFf, numLayers, context } = sizes
  const asked = <K extends keyof TrainOptions>(
    name: K,
    chosen: TrainOptions[K],
  ): TrainOptions[K] => (given.has(name) ? options[name] : chosen)
  const lr = asked('lr', sizes.lr)
  const seqLength = asked('seqLength', context)
  const batchSize = asked('batchSize', Math.max(1, Math.floor(sizes.batchTokens / seqLength)))
  const perStep = batchSize * seqLength * options.accumulate
  const steps = asked('maxSteps', Math.max(1, Math.floor(sizes.trainedTokens / perStep)))
  const interval = Math.max(1, Math.ceil(steps! / EVALUATIONS))
  return {
    ...{
      dModel,
      numHeads,
      dFf,
      numLayers,
      batchSize,
      seqLength,
      dtype,
      lr,
      lrMin: Number((lr / 10).toPrecision(6)),
    },
    ...{ maxSeqLength: Math.max(context, seqLength), theta: 10_000 },
    ...(!given.has('numEpochs') && { maxSteps: steps }),
    ...{ warmupRatio: 0.05, warmfixRatio: 1, betas: [0.9, 0.99] },
    ...{ weightDecay: 0.1, decay: 'matrices' as const },
    ...{ evalInterval: interval, saveInterval: interval, sampleInterval: interval },
  }
}

/** Returns messages that tell the user what was chosen and why. */
function reasons(
  options: TrainOptions,
  { trainedTokens, seconds, limit }: AutoSizes,
  { name }: MachineSpeed,
  tokens: number,
): string[] {
  const { dModel, numLayers, seqLength, lr, dtype, maxSteps } = options
  const { batchSize, accumulate, numEpochs } = options
  const trained =
    maxSteps === undefined ? numEpochs * tokens : maxSteps * batchSize * seqLength * accumulate
  const minutes = Math.max(1, Math.round((seconds * trained) / trainedTokens / 60))
  const end =
    limit === 'time'
      ? 'more would take longer than about ten minutes'
      : 'more would overfit so small a text'
  return [
    `chosen for ${tokens} tokens and ${name}: ${numLayers} layers of width ${dModel}, ` +
      `windows of ${seqLength}, learning rate ${lr.toExponential()}, ${dtype}`,
    `and ${(trained / tokens).toPrecision(2)} passes over the text (${end}): ` +
      `about ${minutes} minute${minutes === 1 ? '' : 's'} if nothing else is running`,
    'to choose the model yourself, give its sizes, such as --d-model, or a --preset',
  ]
}
