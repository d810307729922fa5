/** `kindling encode`: text files to a token store. */
import { Command } from 'commander'
import { z } from 'zod'
import { parse } from '../../training/config'
import { fromNative } from '../../errors'
import { count, duration } from '../logger'
import { TokenStore } from '../../token-store'
import { Tokenizer } from '../../tokenizer'
import { corpusFields, corpusOptions } from '../corpus-flags'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run, usage } from '../output'
import { ByteProgress } from '../progress'

const fields = {
  tokenizer: z.string().optional().describe('folder of the tokenizer'),
  vocab_path: z.string().optional().describe('vocabulary, where there is no tokenizer folder'),
  merges_path: z.string().optional().describe('merges that belong to it'),
  special_tokens: z
    .array(z.string())
    .default(['<|endoftext|>'])
    .describe('special tokens of the vocabulary'),
  out: z.string().describe('folder to write; a name that ends in _chunks is the store itself'),
  chunk_size: z.int().min(1).default(500_000).describe('tokens of a chunk file'),
  token_dtype: z
    .enum(['int32', 'uint16'])
    .default('int32')
    .describe('integers of the chunk files: int32 or uint16 (vocabularies up to 65536)'),
  valid_fraction: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe('share of the tokens, from the end, for validation'),
  append_eot: z.boolean().default(false).describe('put <|endoftext|> after every document'),
  document: z
    .enum(['file', 'line', 'block'])
    .optional()
    .describe(
      'what a document is: file, line or block (between blank lines) (default: line for JSON Lines, else file)',
    ),
  ...corpusFields,
  restart: z.boolean().default(false).describe('begin anew even if a killed run can be continued'),
  threads: z.int().min(1).optional().describe('threads (default: the cores this process may use)'),
}

const EXAMPLES = `
Files may be plain, gzip or zstd; - is standard input; quoted patterns as 'web/**/*.jsonl.zst' stand for what they match.
A run that was killed or interrupted is continued by the same command.

Examples:
  kindling encode book.txt --tokenizer data/tokenizer --out data/book --valid-fraction 0.05
  kindling encode a.txt b.txt --vocab-path vocab.json --merges-path merges.txt --out data/2G_chunks
  kindling encode 'web/*.jsonl.gz' --tokenizer data/tokenizer --append-eot --token-dtype uint16 --out data/web
  zcat dump.gz | kindling encode - --tokenizer data/tokenizer --append-eot --document block --out data/dump`

export function encodeCommand(): Command {
  const command = new Command('encode').description('encode text files to a token store')
  command.argument('<file...>', 'text or JSON Lines, read as UTF-8')
  addFields(command, fields).addHelpText('after', EXAMPLES)
  return command.action(
    run(async (flags, output, files) => {
      const options = parse(z.strictObject(fields), flags)
      const tokenizer = await openTokenizer(options)
      const started = performance.now()
      const progress = new ByteProgress('encoding', output, files.includes('-'))
      const summary = await withInterrupt((signal) =>
        TokenStore.encodeFiles(files, tokenizer, options.out, {
          chunkSize: options.chunk_size,
          validFraction: options.valid_fraction,
          tokenDtype: options.token_dtype,
          appendEot: options.append_eot,
          ...corpusOptions(options),
          resume: !options.restart,
          keepWhenAborted: true,
          ...(options.document === undefined ? {} : { document: options.document }),
          ...(options.threads === undefined ? {} : { threads: options.threads }),
          signal,
          onProgress: (done, total) => progress.report(done, total),
        }),
      ).catch((error: unknown) => {
        output.clear()
        if (fromNative(error).code === 'ERR_CANCELLED' && !files.includes('-')) {
          output.note('interrupted: the same command goes on from here')
        }
        throw error
      })
      output.clear()
      const seconds = (performance.now() - started) / 1000
      const { tokens, bytes, replacedBytes, resumedBytes } = summary
      if (resumedBytes > 0) {
        output.note(
          `continued a run that had encoded ${(resumedBytes / 1e6).toFixed(1)} MB of the text`,
        )
      }
      if (replacedBytes > 0) {
        output.note(`${replacedBytes} bytes were no UTF-8 and became U+FFFD`)
      }
      output.line({ tokens, bytes, seconds: Number(seconds.toFixed(3)), out: options.out })
      output.text(
        `${tokens} tokens of ${count(bytes)} bytes in ${duration(seconds)} (${((bytes - resumedBytes) / 1e6 / seconds).toFixed(1)} MB/s): ${options.out}`,
      )
    }),
  )
}

/** The tokenizer that the flags name: a folder, or a vocabulary with its merges. */
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
  throw usage('give --tokenizer DIR, or --vocab-path and --merges-path')
}
