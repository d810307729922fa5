// How large should the vocabulary be? Trains tokenizers of several sizes on nine tenths of a text and
// measures on the last tenth how many bytes a token stands for, and what it costs.
//
//   node examples/06-tokenizer-study.mjs [book.txt]
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Tokenizer } from 'kindling'

const packageFile = import.meta.resolve('kindling/package.json')
const book = process.argv[2] ?? fileURLToPath(new URL('assets/moby-dick.txt', packageFile))
const sizes = (process.env.SIZES ?? '300,500,1000,2000,4000,8000').split(',').map(Number)
// Of the embedding and the output layer, whose size is the price of a vocabulary.
const D_MODEL = 128

const text = readFileSync(book, 'utf8')
const cut = Math.floor(0.9 * text.length)
const unseen = text.slice(cut)
const bytes = Buffer.byteLength(unseen)
mkdirSync('data', { recursive: true })
writeFileSync('data/study-train.txt', text.slice(0, cut))

console.log('vocabulary  bytes/token  seconds  MB/s  parameters of embedding and output')
for (const vocabSize of sizes) {
  const started = performance.now()
  const tokenizer = await Tokenizer.train(['data/study-train.txt'], { vocabSize })
  const seconds = (performance.now() - started) / 1000

  const before = performance.now()
  const ids = tokenizer.encode(unseen)
  const speed = bytes / 1e6 / ((performance.now() - before) / 1000)

  // Byte-level BPE loses nothing, whatever the text.
  if (tokenizer.decode(ids) !== unseen) throw new Error('decoding gave another text')
  console.log(
    String(tokenizer.vocabSize).padStart(10),
    (bytes / ids.length).toFixed(3).padStart(12),
    seconds.toFixed(2).padStart(8),
    speed.toFixed(0).padStart(5),
    String(2 * tokenizer.vocabSize * D_MODEL).padStart(10),
  )
}
