/** The options of a run that starts from another model. */
import { snakeCaseName } from '../case'
import { KindlingError } from '../errors'
import type { ResolvedOptions, TrainOptions } from './config'
import { checkSizes } from './resolve-options'
import { DEFAULT_SEQ_LENGTH, type ModelSource } from './model-source'

/** Options that the weights determine. */
const SIZES = [
  'vocabSize',
  'dModel',
  'numHeads',
  'numKvHeads',
  'dFf',
  'numLayers',
  'theta',
  'tieEmbeddings',
  'qkvBias',
  'headSize',
  'normEps',
  'qkNorm',
  'ropeScaling',
] as const satisfies readonly (keyof TrainOptions)[]

/**
 * Returns the options with the sizes of `base`. The context may be shorter than that of `base`.
 *
 * @throws KindlingError `ERR_INVALID_CONFIG` naming every size that was given and differs.
 */
export function startingFrom(resolved: ResolvedOptions, base: ModelSource): ResolvedOptions {
  const { options, given } = resolved
  const sizes = base.config.options
  const context = given.has('maxSeqLength') ? options.maxSeqLength : sizes.maxSeqLength
  const different = SIZES.filter(
    (name) => given.has(name) && JSON.stringify(options[name]) !== JSON.stringify(sizes[name]),
  ).map((name) => difference(name, options[name], sizes[name]))
  if (context > sizes.maxSeqLength) {
    different.push(difference('maxSeqLength', context, sizes.maxSeqLength))
  }
  if (different.length > 0) {
    throw new KindlingError(
      'ERR_INVALID_CONFIG',
      `${different.join('; ')}; omit the sizes to take those of ${options.from}`,
    )
  }
  const merged: TrainOptions = {
    ...options,
    ...Object.fromEntries(SIZES.map((name) => [name, sizes[name]])),
    maxSeqLength: context,
    seqLength: given.has('seqLength') ? options.seqLength : Math.min(context, DEFAULT_SEQ_LENGTH),
  }
  checkSizes(merged)
  return { options: merged, given: new Set([...given, 'vocabSize']), isAutomatic: false }
}

function difference(name: string, asked: unknown, has: unknown): string {
  const [wanted, found] = [asked, has].map((value) => JSON.stringify(value) ?? 'the default')
  return `${snakeCaseName(name)} is ${wanted} but the model has ${found}`
}
