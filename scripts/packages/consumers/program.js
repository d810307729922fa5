/** The program that each project in scripts/packages/install-test.js runs, and its variants. */

const NAMES = 'Tokenizer, TokenStore, Transformer, AdamW, cosineSchedule, generate'

/** Trains a model for ten steps and generates text. `%NUMBERS%` is a type in TypeScript. */
const PROGRAM = `
async function main() {
  const sizes = { vocabSize: 300, dModel: 32, numHeads: 4, dFf: 48, numLayers: 2, maxSeqLength: 32 }
  const tokenizer = await Tokenizer.train(['corpus.txt'], { vocabSize: 300, specialTokens: ['<|endoftext|>'] })
  const store = await TokenStore.encode(['corpus.txt'], tokenizer, 'data/' + process.pid + Math.random() + '_chunks')
  const model = new Transformer({ ...sizes, seed: 1 })
  const optimizer = new AdamW(model, { weightDecay: 0.1, betas: [0.9, 0.95] })
  const schedule = cosineSchedule({ lrMax: 1e-2, lrMin: 1e-3, warmupSteps: 2, cosineSteps: 10 })
  const losses%NUMBERS% = []
  for (let step = 1; step <= 10; step++) {
    const { loss } = await model.forwardBackward(store.batch({ batchSize: 4, seqLength: 32, seed: 1, step }))
    await optimizer.clipGradNorm(1.0)
    await optimizer.step({ lr: schedule(step) })
    losses.push(Number(loss))
  }
  if (!(Number(losses[9]) < Number(losses[0]))) throw new Error('the loss did not fall: ' + losses.join(' '))
  let text = ''
  for await (const piece of generate(model, tokenizer, 'Call me', { maxTokens: 8, seed: 1 })) text += piece
  if (!text.startsWith('Call me')) throw new Error('the text does not begin with the prompt: ' + text)
}
`
const START = `main().then(() => console.log('trained and generated'), (error) => { console.error(error); process.exitCode = 1 })\n`

/** Trains in a worker and waits for it; then starts two at once and terminates one at work. */
const WORKERS = `
const { isMainThread, parentPort, Worker } = require('node:worker_threads')
const { ${NAMES} } = require('kindling')
${PROGRAM.replace('%NUMBERS%', '')}
const start = () => {
  const worker = new Worker(__filename)
  const ended = new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject))
  return { worker, ended }
}
async function control() {
  if ((await start().ended) !== 0) throw new Error('a worker failed')
  const [one, two] = [start(), start()]
  await new Promise((resolve) => one.worker.once('message', resolve))
  await one.worker.terminate()
  if ((await two.ended) !== 0) throw new Error('the second worker failed')
  await main()
}
async function work() {
  parentPort.postMessage('begins')
  for (let round = 0; round < 5; round++) await main()
}
(isMainThread ? control() : work()).then(
  () => isMainThread && console.log('trained and generated'),
  (error) => { console.error(error); process.exit(1) },
)
`

const imports = (kind) =>
  kind === 'require'
    ? `const { ${NAMES} } = require('kindling')\n`
    : `import { ${NAMES} } from 'kindling'\n`
const javaScript = PROGRAM.replace('%NUMBERS%', '')
const typeScript = PROGRAM.replace('%NUMBERS%', ': number[]')
const typedStart = START.replace('(error)', '(error: unknown)')

const tsconfig = (module, moduleResolution) =>
  JSON.stringify({
    compilerOptions: {
      target: 'ES2022',
      lib: ['ES2023'],
      module,
      moduleResolution,
      strict: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: false,
      noEmitOnError: true,
      outDir: `built-${moduleResolution}`,
    },
    files: [moduleResolution === 'bundler' ? 'program.mts' : 'program.cts'],
  })

/** The files of a project. */
const FILES = {
  'corpus.txt': 'Call me Ishmael. Some years ago, never mind how long precisely. '.repeat(200),
  'program.cjs': imports('require') + javaScript + START,
  'program.mjs': imports('import') + javaScript + START,
  'program.cts': imports('import') + typeScript + typedStart,
  'program.mts': imports('import') + typeScript + typedStart,
  'workers.cjs': WORKERS,
  'tsconfig.node16.json': tsconfig('node16', 'node16'),
  'tsconfig.bundler.json': tsconfig('es2022', 'bundler'),
}

module.exports = { FILES }
