/**
 * Fills in the options of a run: a flag wins over the config file, which wins over the preset,
 * which wins over the default. Then checks what depends on several options.
 */
import { readFileSync } from 'node:fs'
import { toCamelCase, toSnakeCase } from '../case'
import { KindlingError, call } from '../errors'
import { MAX_BATCH_TOKENS } from '../limits'
import {
  parse,
  trainSchema,
  type GivenOptions,
  type ResolvedOptions,
  type TrainOptions,
  type TrainerOptions,
} from './config'
import { SAYS_MODEL } from './fields'
import { PRESETS } from './presets'

/**
 * Merges flags, config file, preset and defaults.
 *
 * @param flags - options by their snake_case names.
 * @param configFile - path of a JSON file with the same names.
 * @throws KindlingError `ERR_USAGE` (unknown name, invalid value), `ERR_NOT_FOUND` (no config
 * file), `ERR_INVALID_CONFIG` (sizes that do not fit together).
 */
export function resolveOptions(flags: GivenOptions, configFile?: string): ResolvedOptions {
  const fromFile = configFile === undefined ? {} : readConfigFile(configFile)
  const explicit: Record<string, unknown> = { ...fromFile, ...withoutUndefined(flags) }
  const preset = typeof explicit['preset'] === 'string' ? presetOptions(explicit['preset']) : {}
  const merged: Record<string, unknown> = { ...preset, ...explicit }
  const options = toCamelCase(parse(trainSchema, merged))
  // A peak rate below the default lr_min is not an error: the default follows it down.
  if (merged['lr_min'] === undefined) options.lrMin = Math.min(options.lrMin, options.lr)
  // The sizes of a model to start from are not known yet.
  if (options.from === undefined) checkSizes(options)
  const { vocab_size: _, ...presetGiven } = preset
  const given = new Set(Object.keys(toCamelCase({ ...presetGiven, ...explicit })))
  const isAutomatic =
    explicit['corpus'] !== undefined &&
    configFile === undefined &&
    !SAYS_MODEL.some((name) => name in explicit)
  return { options, given, isAutomatic }
}

/** Converts the options of `Trainer` to snake_case. */
export function fromCamelCase(options: TrainerOptions): GivenOptions {
  return call(() => toSnakeCase(options))
}

function readConfigFile(file: string): Record<string, unknown> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw new KindlingError('ERR_NOT_FOUND', `cannot read config file ${file}; check the path`, {
      cause: error,
    })
  }
  try {
    const values: unknown = JSON.parse(text)
    if (typeof values === 'object' && values !== null && !Array.isArray(values)) {
      return values as Record<string, unknown>
    }
    throw new SyntaxError('not an object')
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new KindlingError('ERR_USAGE', `config file ${file} must be a JSON object: ${reason}`)
  }
}

function presetOptions(name: string): Record<string, unknown> {
  const preset = PRESETS[name]
  if (!preset) return {}
  const { context, ...sizes } = preset
  return { ...sizes, seq_length: context, max_seq_length: context }
}

function withoutUndefined(values: GivenOptions): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined))
}

/**
 * Checks what depends on several options. The engine checks its own limits again.
 *
 * @throws KindlingError `ERR_INVALID_CONFIG` with the snake_case names of the options.
 */
export function checkSizes(options: TrainOptions): void {
  const { dModel, numHeads, headSize, numKvHeads = numHeads, seqLength, maxSeqLength } = options
  const fail = (message: string): never => {
    throw new KindlingError('ERR_INVALID_CONFIG', message)
  }
  if (headSize === undefined && dModel % numHeads !== 0) {
    fail(`d_model ${dModel} is not divisible by num_heads ${numHeads}; choose a multiple`)
  }
  if (headSize === undefined && (dModel / numHeads) % 2 !== 0) {
    fail(
      `head size ${dModel / numHeads} (d_model / num_heads) is odd; rotary angles need an even one`,
    )
  }
  if (headSize !== undefined && headSize % 2 !== 0) {
    fail(`head_size ${headSize} is odd; rotary angles need an even one`)
  }
  if (numHeads % numKvHeads !== 0) {
    fail(`num_heads ${numHeads} is not divisible by num_kv_heads ${numKvHeads}`)
  }
  if (seqLength > maxSeqLength) {
    fail(`seq_length ${seqLength} is above max_seq_length ${maxSeqLength}; raise max_seq_length`)
  }
  if (options.batchSize * seqLength > MAX_BATCH_TOKENS) {
    const tokens = `${options.batchSize} x ${seqLength}`
    fail(`batch_size x seq_length ${tokens} is above ${MAX_BATCH_TOKENS} tokens; lower batch_size`)
  }
  if (options.lrMin > options.lr) {
    fail(`lr_min ${options.lrMin} is above the learning rate ${options.lr}; lower it`)
  }
  if (options.warmupRatio > options.warmfixRatio) {
    fail(`warmup_ratio ${options.warmupRatio} is above warmfix_ratio ${options.warmfixRatio}`)
  }
}
