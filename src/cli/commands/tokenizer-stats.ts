/** `kindling tokenizer stats`: compares tokenizers on files, as a table. */
import { Command } from 'commander'
import { z } from 'zod'
import { Tokenizer } from '../../tokenizer'
import { parse } from '../../training/config'
import { FILE_ARGUMENT, INPUT_FILES, corpusFields, inputFiles } from '../shared-flags'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run } from '../output'
import { ByteProgress } from '../progress'
import { measureTokenizer, sampleDocuments, type TokenizerStats } from '../tokenizer-stats'

const fields = {
  tokenizer: z
    .array(z.string().meta({ value: 'dir' }))
    .min(1)
    .describe('tokenizer folders'),
  sample: z.int().min(1).default(10).describe('documents to sample from each file'),
  seed: z.int().min(0).default(0).describe('random seed of the sample'),
  ...corpusFields,
}

const EXAMPLES = [
  'kindling tokenizer stats stories.txt web.txt --tokenizer data/stories/tokenizer data/web/tokenizer',
  'kindling tokenizer stats book.txt --tokenizer data/tokenizer --sample 50 --json',
  "kindling tokenizer stats 'web/*.jsonl.zst' --text-field body --tokenizer data/tokenizer",
]
const NOTES =
  `${INPUT_FILES}\nIn JSON Lines, each line is a document; in plain text, <|endoftext|> separates ` +
  'documents. Documents over 64 MiB are truncated.'

export function tokenizerStatsCommand(): Command {
  const command = new Command('stats').description('measure compression and speed of tokenizers')
  command.argument(...FILE_ARGUMENT)
  addFields(command, fields)
  addExamples(command, EXAMPLES, { notes: NOTES })
  return command.action(
    run(async (flags, output, names) => {
      const { tokenizer: folders, sample, seed, ...corpus } = parse(z.strictObject(fields), flags)
      const { files, reading } = await inputFiles(names, corpus, output)
      const tokenizers = await Promise.all(folders.map((folder) => Tokenizer.open(folder)))
      const table = new Table(folders, files)
      output.text(table.header())
      for (const file of files) {
        const progress = new ByteProgress(`reading ${file}`, output, file === '-')
        const documents = await withInterrupt((signal) =>
          sampleDocuments(file, {
            sample,
            seed,
            ...reading,
            signal,
            onProgress: (done, total) => progress.report(done, total),
          }),
        )
        output.clear()
        for (const [i, tokenizer] of tokenizers.entries()) {
          const stats = measureTokenizer(tokenizer, documents)
          const { hoursForPile, ...rest } = stats
          output.line({
            tokenizer: folders[i],
            file,
            documents: documents.length,
            ...rest,
            hours_for_825_gib: hoursForPile,
          })
          output.text(table.row(folders[i]!, file, stats))
        }
      }
    }),
  )
}

/** A table with columns wide enough for the names of the folders and files. */
class Table {
  readonly #folderWidth: number
  readonly #fileWidth: number

  constructor(folders: readonly string[], files: readonly string[]) {
    this.#folderWidth = Math.max(...folders.map((folder) => folder.length), 'tokenizer'.length) + 2
    this.#fileWidth = Math.max(...files.map((file) => file.length), 'file'.length) + 2
  }

  header(): string {
    const names = 'tokenizer'.padEnd(this.#folderWidth) + 'file'.padEnd(this.#fileWidth)
    return `${names}bytes/token      MB/s    tokens/s  hours for 825 GiB`
  }

  row(folder: string, file: string, stats: TokenizerStats): string {
    return (
      folder.padEnd(this.#folderWidth) +
      file.padEnd(this.#fileWidth) +
      stats.bytesPerToken.toFixed(3).padStart(11) +
      stats.mbPerSecond.toFixed(2).padStart(10) +
      String(stats.tokensPerSecond).padStart(12) +
      stats.hoursForPile.toFixed(2).padStart(19)
    )
  }
}
