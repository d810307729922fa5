/**
 * The report of a run that stopped at a loss, gradient or weight that is NaN or infinite: what it
 * saw, in `non-finite.json` of its folder.
 */
import { join } from 'node:path'
import { toSnakeCase } from '../case'
import { KindlingError } from '../errors'
import { writeFileAtomic } from '../files'
import type { BatchWindow } from './batch-loader'
import type { TrainingSession } from './session'

/** Steps whose batches are listed, at most. */
const MAX_STEPS = 16

/** What the loop knows when it stops. */
export interface Sighting {
  /** The step that was being done. */
  step: number
  /** The first step that may have been the cause: a GPU's losses are read for several at once. */
  firstStep: number
  /** Losses of the step's batches, as far as they were read. */
  losses: readonly number[]
  /** Gradient norm before clipping, of the last update that had one. */
  gradNorm: number
}

/** Contents of non-finite.json. Numbers that are not finite are strings. */
interface Report {
  formatVersion: 1
  message: string
  step: number
  firstStep: number
  losses: (number | string)[]
  gradNorm: number | string
  /** The first op with such an output, if the run detects anomalies; null if it does not. */
  op: string | null
  /** The first tensor of weights with a NaN or an infinity; null if there is none. */
  weight: string | null
  /** The first such tensor of gradients. */
  gradient: string | null
  seed: number
  /** The stores that `windows` refer to. */
  stores: string[]
  batches: { step: number; microBatch: number; windows: BatchWindow[] }[]
}

/**
 * Writes the report of an `ERR_NON_FINITE`.
 *
 * @returns the error, with the path of the report.
 */
export async function explainNonFinite(
  session: TrainingSession,
  error: KindlingError,
  sighting: Sighting,
): Promise<KindlingError> {
  const path = join(session.folder.path, 'non-finite.json')
  const { model, options, data } = session
  const report: Report = {
    formatVersion: 1,
    message: error.message,
    step: sighting.step,
    firstStep: sighting.firstStep,
    losses: sighting.losses.map(printable),
    gradNorm: printable(sighting.gradNorm),
    op: await model.nonFiniteOp(),
    weight: await model.nonFiniteWeight(),
    gradient: await model.nonFiniteGradient(),
    seed: options.seed,
    stores: data.train.map(({ store }) => store.path),
    batches: batchesOf(session, sighting),
  }
  await writeFileAtomic(path, `${JSON.stringify(toSnakeCase(report), null, 2)}\n`)
  const tensor = report.weight ?? report.gradient
  const where = tensor === null ? '' : ` (first in ${tensor})`
  return new KindlingError(error.code, `${error.message}${where}; see ${path} for what was seen`, {
    cause: error,
  })
}

function batchesOf(
  { batches, options }: TrainingSession,
  { step, firstStep }: Sighting,
): Report['batches'] {
  const list: Report['batches'] = []
  for (let at = Math.max(firstStep, step - MAX_STEPS + 1); at <= step; at++) {
    for (let microBatch = 0; microBatch < options.accumulate; microBatch++) {
      list.push({ step: at, microBatch, windows: batches.windows({ step: at, microBatch }) })
    }
  }
  return list
}

/** JSON has no NaN and no infinities. */
function printable(value: number): number | string {
  return Number.isFinite(value) ? value : String(value)
}
