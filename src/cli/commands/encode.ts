/** `kindling encode`: encodes text files into a token store. */
import { Command } from 'commander'
import { z } from 'zod'
import { planEncoding, type EncodePlan } from '../../encode-plan'
import { fromNative } from '../../errors'
import { existingStores } from '../../store-paths'
import { TokenStore } from '../../token-store'
import { END_OF_TEXT } from '../../tokenizer'
import { parse } from '../../training/config'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { count, duration, megabytes } from '../../format'
import { withInterrupt } from '../interrupt'
import { run, type Output } from '../output'
import { ByteProgress } from '../progress'
import {
  FILE_ARGUMENT,
  INPUT_FILES,
  corpusFields,
  dryRun,
  inputFiles,
  printWrites,
  threads,
  openTokenizer,
  tokenizerFields,
} from '../shared-flags'
import { outliveOutput } from '../streams'

const fields = {
  ...tokenizerFields,
  out: z
    .string()
    .meta({ value: 'dir' })
    .describe('output folder; if its name ends in _chunks, it becomes the store itself'),
  chunk_size: z.int().min(1).default(500_000).describe('tokens per chunk file'),
  token_dtype: z
    .enum(['int32', 'uint16'])
    .default('int32')
    .describe('type of the stored token ids; uint16 works for vocabularies of up to 65536 tokens'),
  valid_fraction: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe('fraction of the tokens, from the end, to set aside for validation'),
  append_eot: z
    .boolean()
    .optional()
    .describe(
      'add <|endoftext|> after every document (default: for JSON Lines, Parquet and several files)',
    ),
  document: z
    .enum(['file', 'line', 'block'])
    .optional()
    .describe(
      'a document is a whole file, a line, or a block between blank lines ' +
        '(default: line for JSON Lines, else file)',
    ),
  ...corpusFields,
  restart: z
    .boolean()
    .default(false)
    .describe('start over instead of continuing an interrupted encoding'),
  threads,
  dry_run: dryRun,
}

const EXAMPLES = [
  'kindling encode book.txt --tokenizer data/tokenizer --out data/book --valid-fraction 0.05',
  'kindling encode a.txt b.txt --vocab-path vocab.json --merges-path merges.txt --out data/2G_chunks',
  "kindling encode 'web/*.jsonl.gz' --tokenizer data/tokenizer --append-eot --out data/web",
  'zcat dump.gz | kindling encode - --tokenizer data/tokenizer --document block --out data/dump',
]
const NOTES = `${INPUT_FILES}\nTo continue an interrupted or killed encoding, run the same command again.`

export function encodeCommand(): Command {
  const command = new Command('encode').description('encode text files into a token store')
  command.argument(...FILE_ARGUMENT)
  addFields(command, fields)
  addExamples(command, EXAMPLES, { notes: NOTES })
  return command.action(
    run(async (flags, output, names) => {
      const options = parse(z.strictObject(fields), flags)
      outliveOutput()
      const tokenizer = await openTokenizer(options)
      const { files, reading } = await inputFiles(names, options, output)
      if (options.dry_run) {
        const { out, valid_fraction: validFraction } = options
        const { format } = reading
        printPlan(await planEncoding({ files, format, tokenizer, out, validFraction }), output)
        return
      }
      for (const store of existingStores(options.out)) output.note(`${store} will be replaced`)
      const started = performance.now()
      const progress = new ByteProgress('encoding', output, files.includes('-'))
      const summary = await withInterrupt((signal) =>
        TokenStore.encodeFiles(files, tokenizer, options.out, {
          chunkSize: options.chunk_size,
          validFraction: options.valid_fraction,
          tokenDtype: options.token_dtype,
          ...(options.append_eot === undefined ? {} : { appendEot: options.append_eot }),
          ...reading,
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
          output.note('interrupted; run the same command again to continue')
        }
        throw error
      })
      output.clear()
      const seconds = (performance.now() - started) / 1000
      const { tokens, bytes, replacedBytes, resumedBytes } = summary
      if (summary.appendEot && options.append_eot === undefined) {
        output.note(
          `added ${END_OF_TEXT} after every document (to leave it out, add --no-append-eot)`,
        )
      }
      if (resumedBytes > 0) {
        output.note(`continued an interrupted encoding after ${megabytes(resumedBytes)} MB`)
      }
      if (replacedBytes > 0) {
        output.note(`${replacedBytes} bytes of invalid UTF-8 became U+FFFD`)
      }
      output.line({ tokens, bytes, seconds: Number(seconds.toFixed(3)), out: options.out })
      const speed = ((bytes - resumedBytes) / 1e6 / seconds).toFixed(1)
      output.text(
        `${tokens} tokens from ${count(bytes)} bytes in ${duration(seconds)} (${speed} MB/s): ` +
          options.out,
      )
    }),
  )
}

/** Prints what would be encoded. */
function printPlan(plan: EncodePlan, output: Output): void {
  output.line({ dryRun: true, ...plan })
  const { files, bytes, tokensEstimated, writes, replaces } = plan
  const size = bytes === null ? 'standard input' : `${megabytes(bytes)} MB`
  const tokens = tokensEstimated === null ? '' : `, about ${count(tokensEstimated)} tokens`
  output.text(`${files} ${files === 1 ? 'file' : 'files'}, ${size}${tokens}`)
  printWrites(output, writes)
  for (const store of replaces) output.note(`${store} would be replaced`)
}
