/** Flags that several commands share: input files, a tokenizer, a trained model, threads. */
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { findFiles, type CorpusFormat } from '../corpus-files'
import { readCompanions, stopIdsOf } from '../exchange/companions'
import { Tokenizer } from '../tokenizer'
import { limits } from '../limits'
import { trainFields } from '../training/fields'
import { loadRun } from '../training/load-run'
import { load, type LoadedModel } from '../training/model-source'
import { usage, type Output } from './output'

export const threads = limits.threads
  .optional()
  .describe('number of threads (default: the cores available to this process)')

/** Describes input files at the end of a help text. */
export const INPUT_FILES =
  'Input files may be plain, gzip or zstd; - reads standard input. Quote a pattern, such as ' +
  "'web/**/*.jsonl.zst', so that kindling expands it, not the shell. A folder means all text files " +
  'in it and its subfolders (.txt, .md, .jsonl, .parquet and similar).'

export const FILE_ARGUMENT = [
  '<file...>',
  'text (UTF-8), JSON Lines or Parquet files, or folders of them',
] as const

/** What the input files contain. */
export const corpusFields = {
  format: z
    .enum(['auto', 'text', 'jsonl', 'parquet'])
    .default('auto')
    .describe(
      'file format; auto: jsonl for names ending in .jsonl, .ndjson or .json.gz, parquet for ' +
        '.parquet, text for all others',
    ),
  text_field: z
    .string()
    .meta({ value: 'name' })
    .default('text')
    .describe('JSON Lines field or Parquet column that holds the text'),
}

/** Input files, and the library's options for reading them. */
export interface InputFiles {
  files: string[]
  reading: { format?: CorpusFormat; textField: string }
}

/** Finds the files that a command names, and reports what was found in folders. */
export async function inputFiles(
  names: readonly string[],
  flags: z.output<z.ZodObject<typeof corpusFields>>,
  output: Output,
): Promise<InputFiles> {
  const asked = flags.format === 'auto' ? undefined : flags.format
  const { files, format, notes } = await findFiles(names, asked)
  for (const note of notes) output.note(note)
  return { files, reading: { textField: flags.text_field, ...(format && { format }) } }
}

/** The flag of commands that can print what they would do. */
export const dryRun = z
  .boolean()
  .default(false)
  .describe('print what would be written, and write nothing')

/** Prints paths that would be written. */
export function printWrites(output: Output, paths: readonly string[]): void {
  output.text('would write')
  for (const path of paths) output.text(`  ${path}`)
}

/** A tokenizer: a folder, or a vocabulary with its merges. */
export const tokenizerFields = {
  tokenizer: z.string().meta({ value: 'dir' }).optional().describe('tokenizer folder'),
  vocab_path: z
    .string()
    .meta({ value: 'file' })
    .optional()
    .describe('vocabulary file, instead of a tokenizer folder'),
  merges_path: z
    .string()
    .meta({ value: 'file' })
    .optional()
    .describe('merges file that belongs to the vocabulary file'),
  special_tokens: z
    .array(z.string())
    .default(['<|endoftext|>'])
    .describe('special tokens of the vocabulary file'),
}

/**
 * Opens the tokenizer that the flags name.
 *
 * @throws KindlingError `ERR_USAGE` if they name none.
 */
export async function openTokenizer(options: {
  tokenizer?: string | undefined
  vocab_path?: string | undefined
  merges_path?: string | undefined
  special_tokens: string[]
}): Promise<Tokenizer> {
  const { tokenizer, vocab_path, merges_path, special_tokens } = options
  if (tokenizer !== undefined) return Tokenizer.open(tokenizer)
  if (vocab_path !== undefined && merges_path !== undefined) {
    return Tokenizer.fromFiles(vocab_path, merges_path, special_tokens)
  }
  throw usage('no tokenizer given; add --tokenizer DIR, or both --vocab-path and --merges-path')
}

/** A trained model, and how to run it. */
export const checkpointFields = {
  run: z
    .string()
    .meta({ value: 'dir' })
    .optional()
    .describe('run folder; its newest checkpoint is used'),
  checkpoint: z
    .string()
    .meta({ value: 'dir' })
    .optional()
    .describe('a specific checkpoint, such as RUN/checkpoints/step-00000500, or RUN/best'),
  device: trainFields.device,
  dtype: z
    .enum(['f32', 'bf16'])
    .optional()
    .describe("precision of the matrix multiplications (default: the run's)"),
  threads,
}

/** The argument of commands that take a model. */
export const SOURCE_ARGUMENT = [
  '[source]',
  'run, RUN/checkpoints/step-..., Hugging Face folder, .gguf file or hf:org/name',
] as const

/**
 * Loads the model that the argument or the flags name.
 *
 * @throws KindlingError `ERR_USAGE` if several are named, or none.
 */
export async function loadModel(
  source: string | undefined,
  options: z.output<z.ZodObject<typeof checkpointFields>>,
  onMessage: (text: string) => void,
): Promise<Pick<LoadedModel, 'model' | 'tokenizer' | 'config' | 'companions' | 'stopIds'>> {
  const { run, checkpoint, device, dtype, threads: given } = options
  if (source === undefined) {
    if (run === undefined && checkpoint === undefined) {
      throw usage('no model given; name a run or another SOURCE (see --help), or add --run DIR')
    }
    const loaded = await loadRun({ ...options, onMessage })
    const folder = join(run ?? resolve(checkpoint!, '..', '..'), 'tokenizer')
    const companions = readCompanions(folder)
    return { ...loaded, companions, stopIds: stopIdsOf(companions, loaded.tokenizer) }
  }
  if (run !== undefined || checkpoint !== undefined) {
    throw usage(
      `${source} and ${run === undefined ? '--checkpoint' : '--run'} both name a model; give only one`,
    )
  }
  return load(source, {
    device,
    ...(dtype !== undefined && { dtype }),
    ...(given !== undefined && { threads: given }),
    onMessage,
  })
}
