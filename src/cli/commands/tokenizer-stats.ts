/** `kindling tokenizer stats`: several tokenizers on several files, as a table. */
import { Command } from 'commander'
import { z } from 'zod'
import { parse } from '../../training/config'
import { Tokenizer } from '../../tokenizer'
import { expandFiles, measureTokenizer, sampleDocuments } from '../tokenizer-stats'
import { corpusFields, corpusOptions } from '../corpus-flags'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run } from '../output'
import { ByteProgress } from '../progress'

const fields = {
  tokenizer: z.array(z.string()).min(1).describe('folders of the tokenizers'),
  sample: z.int().min(1).default(10).describe('documents drawn from each file'),
  seed: z.int().min(0).default(0).describe('seed of the drawing'),
  ...corpusFields,
}

const EXAMPLES = `
Files may be plain, gzip or zstd; - is standard input; quoted patterns as 'web/*.txt.gz' stand for what they match. A document is
a line of JSON Lines, or in text what stands between <|endoftext|> (of more than 64 MiB, the beginning).

Examples:
  kindling tokenizer stats stories.txt web.txt --tokenizer data/stories/tokenizer data/web/tokenizer
  kindling tokenizer stats book.txt --tokenizer data/tokenizer --sample 50 --json
  kindling tokenizer stats 'web/*.jsonl.zst' --text-field body --tokenizer data/tokenizer`

export function tokenizerStatsCommand(): Command {
  const command = new Command('stats').description('compression and speed of tokenizers on files')
  command.argument('<file...>', 'text or JSON Lines, read as UTF-8')
  addFields(command, fields).addHelpText('after', EXAMPLES)
  return command.action(
    run(async (flags, output, names) => {
      const { tokenizer: folders, sample, seed, ...corpus } = parse(z.strictObject(fields), flags)
      const files = await expandFiles(names)
      const tokenizers = await Promise.all(folders.map((folder) => Tokenizer.open(folder)))
      const width = Math.max(...folders.map((f) => f.length), 9) + 2
      const fileWidth = Math.max(...files.map((f) => f.length), 4) + 2
      output.text(
        `${'tokenizer'.padEnd(width)}${'file'.padEnd(fileWidth)}bytes/token      MB/s    tokens/s  hours for 825 GiB`,
      )
      for (const file of files) {
        const progress = new ByteProgress(`drawing from ${file}`, output, file === '-')
        const documents = await withInterrupt((signal) =>
          sampleDocuments(file, {
            sample,
            seed,
            ...corpusOptions(corpus),
            signal,
            onProgress: (done, total) => progress.report(done, total),
          }),
        )
        output.clear()
        for (const [i, tokenizer] of tokenizers.entries()) {
          const stats = measureTokenizer(tokenizer, documents)
          output.line({ tokenizer: folders[i], file, documents: documents.length, ...stats })
          output.text(
            folders[i]!.padEnd(width) +
              file.padEnd(fileWidth) +
              stats.bytes_per_token.toFixed(3).padStart(11) +
              stats.mb_per_second.toFixed(2).padStart(10) +
              String(stats.tokens_per_second).padStart(12) +
              stats.hours_for_825_gib.toFixed(2).padStart(19),
          )
        }
      }
    }),
  )
}
