/** Flags shared by the commands that read text files. */
import { z } from 'zod'

/** The note on input files at the end of their help. */
export const INPUT_FILES = `Input files may be plain, gzip or zstd; - reads standard input. Quote a pattern, such as
'web/**/*.jsonl.zst', to let kindling expand it.`

export const FILE_ARGUMENT = ['<file...>', 'text or JSON Lines files, in UTF-8'] as const

export const threads = z
  .int()
  .min(1)
  .optional()
  .describe('number of threads (default: the cores available to this process)')

/** What the input files contain. */
export const corpusFields = {
  format: z
    .enum(['auto', 'text', 'jsonl'])
    .default('auto')
    .describe('format of the files; auto: jsonl if the name ends in .jsonl or .ndjson, else text'),
  text_field: z
    .string()
    .meta({ value: 'name' })
    .default('text')
    .describe('field of a JSON Lines object that holds the text'),
}

/** Returns the library's options for these flags. */
export function corpusOptions(flags: { format: 'auto' | 'text' | 'jsonl'; text_field: string }): {
  format?: 'text' | 'jsonl'
  textField: string
} {
  return {
    textField: flags.text_field,
    ...(flags.format === 'auto' ? {} : { format: flags.format }),
  }
}
