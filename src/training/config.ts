/**
 * The types of a run's options, their schema, and those that a resumed run may change. The fields
 * are in fields.ts, by their names in files and flags (snake_case); `resolveOptions` returns them in
 * camelCase.
 */
import { z } from 'zod'
import type { CamelCased } from '../case'
import { KindlingError } from '../errors'
import { problemsIn } from '../options'
import { trainFields } from './fields'

export const trainSchema = z.strictObject(trainFields)

/** The options of a run, defaults filled in. */
export type TrainOptions = CamelCased<z.output<typeof trainSchema>>

/** The options of `Trainer`: those of `kindling train`, in camelCase. */
export type TrainerOptions = CamelCased<Partial<z.input<typeof trainSchema>>>

/** Options by their snake_case names, as flags and config files give them; not checked yet. */
export type GivenOptions = Partial<Record<keyof typeof trainFields, unknown>>

/** Options, and the names of those that the user or a preset set. */
export interface ResolvedOptions {
  /** Every option, defaults filled in. */
  options: TrainOptions
  /** Names of the options that were set; without `vocabSize` if it comes from a preset, where it is a default like any other. */
  given: ReadonlySet<string>
  /** A corpus is given, and nothing that says what model: one is chosen for it. */
  isAutomatic: boolean
}

/** Options that may change when a run is resumed. */
export const CHANGEABLE_ON_RESUME: ReadonlySet<string> = new Set<keyof TrainOptions>([
  'threads',
  'prefetch',
  'recompute',
  'detectAnomaly',
  'device',
  'peakTflops',
  'logInterval',
  'saveInterval',
  'evalInterval',
  'sampleInterval',
  'keep',
  'keepEvery',
  'stopAtStep',
  'log',
  'run',
  'resume',
  'checkpoint',
])

/**
 * Checks values against a schema.
 *
 * @throws KindlingError `ERR_USAGE` naming every problem; `ERR_INVALID_ARGUMENT` if values are only
 * too large.
 */
export function parse<T extends z.ZodType>(schema: T, values: unknown): z.output<T> {
  const result = schema.safeParse(values, { reportInput: true })
  if (result.success) return result.data
  // A size above its limit, not a fraction above 1.
  const isTooLarge = result.error.issues.every(
    (issue) => issue.code === 'too_big' && Number(issue.maximum) > 1,
  )
  throw new KindlingError(
    isTooLarge ? 'ERR_INVALID_ARGUMENT' : 'ERR_USAGE',
    `${problemsIn(result.error, schema)}; see --help for every option`,
  )
}
