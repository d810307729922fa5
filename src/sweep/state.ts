/**
 * The folder of a sweep: sweep.json with its options and the results so far, one run folder per
 * rate, and report.html. sweep.json is replaced as a whole after each rate.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { toCamelCase, toSnakeCase } from '../case'
import { KindlingError } from '../errors'
import { makeFolder, readText, writeFileAtomic } from '../files'
import { learningRate } from '../format'
import { problemsIn } from '../options'
import { shortHash } from '../short-hash'
import { CHANGEABLE_ON_RESUME, type ResolvedOptions } from '../training/config'

/** Result of the run at one rate. */
export interface SweepResult {
  /** Peak learning rate. */
  lr: number
  /** Last training loss in nats per token; null if it was not finite. */
  loss: number | null
  /** Last validation loss in nats per token; null without one. */
  valLoss: number | null
  /** The loss is not finite, or stayed above its start; such a run is stopped early. */
  diverged: boolean
  /** Why it diverged; null if it did not. */
  reason: string | null
  /** Updates done. */
  steps: number
  /** Folder of the run. */
  run: string
}

const nullable = z.number().nullable()
const schema = z.strictObject({
  format_version: z.literal(1),
  options: z.record(z.string(), z.unknown()),
  results: z.array(
    z.strictObject({
      lr: z.number().positive(),
      loss: nullable,
      val_loss: nullable,
      diverged: z.boolean(),
      reason: z.string().nullable(),
      steps: z.int().min(0),
      run: z.string(),
    }),
  ),
})

/** Options that differ between the runs of a sweep, or do not affect their results. */
const LEFT_OUT: ReadonlySet<string> = new Set([...CHANGEABLE_ON_RESUME, 'lr', 'lrMin'])

/** Returns the options that all runs of a sweep share, by which the sweep is recognized. */
export function sharedOptions({ options }: ResolvedOptions): Record<string, unknown> {
  const entries = Object.entries(options).filter(
    ([name, value]) => !LEFT_OUT.has(name) && value !== undefined,
  )
  return toSnakeCase(Object.fromEntries(entries)) as Record<string, unknown>
}

/** Returns the default folder of a sweep, which is the same for the same options. */
export function defaultFolder(options: Record<string, unknown>): string {
  const text = JSON.stringify(Object.entries(options).sort(([a], [b]) => (a < b ? -1 : 1)))
  return join('runs', `sweep-${shortHash(text)}`)
}

/** The results of a sweep on disk. */
export class SweepState {
  private constructor(
    readonly path: string,
    private readonly options: Record<string, unknown>,
    private results: readonly SweepResult[],
  ) {}

  /**
   * Opens the folder of a sweep, or creates it.
   *
   * @throws KindlingError `ERR_RESUME_MISMATCH` if it holds a sweep with other options,
   * `ERR_RUN_EXISTS` if it holds something else, `ERR_INVALID_CHECKPOINT`, `ERR_NOT_WRITABLE`.
   */
  static async open(path: string, options: Record<string, unknown>): Promise<SweepState> {
    const file = join(path, 'sweep.json')
    if (!existsSync(file)) {
      if (existsSync(join(path, 'config.json'))) {
        throw new KindlingError('ERR_RUN_EXISTS', `${path} is a run; choose another --out`)
      }
      await makeFolder(path)
      const state = new SweepState(path, options, [])
      await state.#write()
      return state
    }
    const { saved, results } = read(file)
    const different = differences(saved, options)
    if (different !== '') {
      throw new KindlingError(
        'ERR_RESUME_MISMATCH',
        `${path} holds a sweep with other options: ${different}; choose another --out`,
      )
    }
    return new SweepState(path, options, results)
  }

  /** The folder of the run at a rate. */
  runAt(lr: number): string {
    return join(this.path, `lr-${learningRate(lr)}`)
  }

  /** The result at a rate; undefined if its run is not finished. */
  resultAt(lr: number): SweepResult | undefined {
    return this.results.find((result) => result.lr === lr)
  }

  /** Records the result at a rate. */
  async record(result: SweepResult): Promise<void> {
    this.results = [...this.results, result]
    await this.#write()
  }

  async #write(): Promise<void> {
    const { options } = this
    // The keys of `options` are in snake_case, and their values are the user's.
    const fields = { format_version: 1, options, results: toSnakeCase(this.results) }
    await writeFileAtomic(join(this.path, 'sweep.json'), `${JSON.stringify(fields, null, 2)}\n`)
  }
}

function read(file: string): { saved: Record<string, unknown>; results: SweepResult[] } {
  const text = readText(file, 'ERR_INVALID_CHECKPOINT')
  const fail = (reason: string): KindlingError =>
    new KindlingError(
      'ERR_INVALID_CHECKPOINT',
      `${file} is damaged: ${reason}; remove it to evaluate the sweep's runs again`,
    )
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw fail(error instanceof Error ? error.message : String(error))
  }
  const parsed = schema.safeParse(json)
  if (!parsed.success) throw fail(problemsIn(parsed.error))
  const { options, results } = parsed.data
  return { saved: options, results: toCamelCase(results) as SweepResult[] }
}

/** Names the options that differ; an empty string if none does. */
function differences(saved: Record<string, unknown>, now: Record<string, unknown>): string {
  const names = [...new Set([...Object.keys(saved), ...Object.keys(now)])]
  return names
    .filter((name) => JSON.stringify(saved[name]) !== JSON.stringify(now[name]))
    .map((name) => `${name} is ${JSON.stringify(saved[name]) ?? 'not set'} there`)
    .join('; ')
}
