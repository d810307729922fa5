/**
 * Continues prompts greedily with llama.cpp, for scripts/campaigns/exchange/index.js.
 *
 * Usage: node llama_peer.mjs FOLDER MODEL.gguf TOKENS < prompts.json > texts.json
 *
 * FOLDER has node-llama-cpp in its node_modules. A prompt is { text, ids }, where `ids` come from
 * our tokenizer. An answer has the ids of llama.cpp's tokenizer, and the ids that follow.
 */
import { readFileSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [folder, file, tokens] = process.argv.slice(2)
const require = createRequire(`${folder}/package.json`)
const { getLlama } = await import(pathToFileURL(require.resolve('node-llama-cpp')).href)
const llama = await getLlama({
  gpu: false,
  build: 'never',
  skipDownload: true,
  logger: () => {},
})
const model = await llama.loadModel({ modelPath: file })
// Threads that wait for each other are slow on a busy machine.
const LIMITS = { threads: 1, batchSize: 128 }
const answers = []
for (const { text, ids } of JSON.parse(readFileSync(0, 'utf8'))) {
  const context = await model.createContext({
    ...LIMITS,
    contextSize: Math.min(512, model.trainContextSize),
    // By default, keys and values are rounded to f16.
    experimentalKvCacheKeyType: 'F32',
    experimentalKvCacheValueType: 'F32',
  })
  const sequence = context.getSequence()
  const next = []
  for await (const token of sequence.evaluate(ids, { temperature: 0 })) {
    if (model.isEogToken(token)) break
    next.push(token)
    if (next.length >= Number(tokens)) break
  }
  answers.push({ ids: model.tokenize(text), next, addsBos: model.tokens.shouldPrependBosToken })
  await context.dispose()
}
writeSync(1, JSON.stringify(answers))
process.exit(0)
