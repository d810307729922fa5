/**
 * The schema and types of a run's options, and which of them a resumed run may change. fields.ts
 * defines them in snake_case, as in flags and config files; `resolveOptions` returns them in
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
  /**
   * Names of the options that were set. A preset's `vocabSize` is not among them: like any default,
   * it yields to the tokenizer's.
   */
  given: ReadonlySet<string>
  /** A corpus is given, but no option says what model to train, so one is chosen to suit it. */
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
 * @throws KindlingError `ERR_USAGE` naming every problem; `ERR_INVALID_ARGUMENT` if the only
 * problem is sizes above their limits.
 */
export function parse<T extends z.ZodType>(schema: T, values: unknown): z.output<T> {
  const result = schema.safeParse(values, { reportInput: true })
  if (result.success) return result.data
  // Only sizes above their limits; a fraction above 1 is wrong usage.
  const isTooLarge = result.error.issues.every(
    (issue) => issue.code === 'too_big' && Number(issue.maximum) > 1,
  )
  throw new KindlingError(
    isTooLarge ? 'ERR_INVALID_ARGUMENT' : 'ERR_USAGE',
    `${problemsIn(result.error, schema)}; see --help for every option`,
  )
}
