/** The flags that say what text files hold, the same for every command that reads some. */
import { z } from 'zod'

export const corpusFields = {
  format: z
    .enum(['auto', 'text', 'jsonl'])
    .default('auto')
    .describe('what the files hold: text, jsonl, or auto: by their names (.jsonl, .ndjson)'),
  text_field: z.string().default('text').describe('field of JSON Lines that is the text'),
}

/** Values of these flags as the library takes them. */
export function corpusOptions(flags: { format: 'auto' | 'text' | 'jsonl'; text_field: string }): {
  format?: 'text' | 'jsonl'
  textField: string
} {
  return {
    textField: flags.text_field,
    ...(flags.format === 'auto' ? {} : { format: flags.format }),
  }
}
