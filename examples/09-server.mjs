// A web server that trains in a worker thread and streams what the model writes.
//
//   node examples/09-server.mjs [book.txt]
//   curl -N 'http://127.0.0.1:8080/generate?prompt=The+whale'
//
// GET /status answers with the last metrics line, GET /generate streams text once training is over.
// It uses node:http, so that it runs with nothing but this package; the same two handlers go into
// Express as app.get('/generate', (request, response) => ...).
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { Trainer, generate, load } from 'kindling'

if (isMainThread) serve()
else await work(workerData)

/** The main thread: HTTP. Nothing here waits for arithmetic. */
function serve() {
  const packageFile = import.meta.resolve('kindling/package.json')
  const book = process.argv[2] ?? fileURLToPath(new URL('assets/moby-dick.txt', packageFile))
  const worker = new Worker(new URL(import.meta.url), { workerData: book })
  const status = { state: 'training', metrics: null }
  const waiting = new Map()
  let lastId = 0
  worker.on('message', ({ id, text, metrics, state }) => {
    if (metrics) status.metrics = metrics
    if (state) status.state = state
    if (text !== undefined) waiting.get(id)?.write(text)
    else if (id !== undefined) waiting.get(id)?.end('\n')
  })

  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost')
    if (url.pathname === '/status') return response.end(`${JSON.stringify(status)}\n`)
    if (url.pathname !== '/generate') return response.writeHead(404).end('not found\n')
    if (status.state !== 'ready') return response.writeHead(503).end('still training\n')
    const id = ++lastId
    waiting.set(id, response)
    // Who hangs up needs no more text.
    response.on('close', () => waiting.delete(id))
    response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8' })
    worker.postMessage({ id, prompt: url.searchParams.get('prompt') ?? 'The' })
  })
  server.listen(Number(process.env.PORT ?? 8080), '127.0.0.1', () => {
    console.log(`http://127.0.0.1:${server.address().port}/status`)
  })
}

/** The worker: trains, then writes what it is asked for. */
async function work(corpus) {
  const trainer = new Trainer({
    ...{ corpus, vocabSize: 500, dModel: 64, numHeads: 4, dFf: 172, numLayers: 2 },
    ...{ seqLength: 64, maxSeqLength: 64, batchSize: 16, lr: 2e-3, logInterval: 10 },
    maxSteps: Number(process.env.STEPS ?? 500),
  })
  trainer.on('metrics', (metrics) => parentPort.postMessage({ metrics }))
  const { run } = await trainer.run()
  const { model, tokenizer } = await load(run)
  // One text after the other: a model runs one call at a time.
  let last = Promise.resolve()
  parentPort.on('message', ({ id, prompt }) => {
    last = last.then(async () => {
      for await (const text of generate(model, tokenizer, prompt, { maxTokens: 60 })) {
        parentPort.postMessage({ id, text })
      }
      parentPort.postMessage({ id })
    })
  })
  parentPort.postMessage({ state: 'ready' })
}
