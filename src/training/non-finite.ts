/**
 * The report of a run that stopped at a NaN or infinite loss, gradient or weight. It is written to
 * `non-finite.json` in the run's folder.
 */
import { join } from 'node:path'
import { toSnakeCase } from '../case'
import { KindlingError } from '../errors'
import { writeFileAtomic } from '../files'
import type { BatchWindow } from './batch-loader'
import type { TrainingSession } from './session'

/** Maximum number of steps whose batches are listed. */
const MAX_STEPS = 16

/** What the loop knows when it stops. */
export interface Sighting {
  /** The step in progress. */
  step: number
  /**
   * The first step that may be the cause: on a GPU the losses of several steps are read at once.
   */
  firstStep: number
  /** Losses of the step's batches that were read. */
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
  /** The first op whose output is not finite; null unless the run detects anomalies. */
  op: string | null
  /** The first weight tensor with a NaN or an infinity; null if there is none. */
  weight: string | null
  /** The first such gradient tensor. */
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

/** Converts NaN and infinities to strings, since JSON has neither. */
function printable(value: number): number | string {
  return Number.isFinite(value) ? value : String(value)
}
