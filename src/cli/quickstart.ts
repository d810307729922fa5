/**
 * From raw text to a trained model in about a minute: trains a tokenizer on the embedded text,
 * encodes it, trains a small model, and samples text before and after.
 */
import { join } from 'node:path'
import { generate } from '../generate'
import { AdamW } from '../optimizer'
import { TokenStore } from '../token-store'
import { Tokenizer } from '../tokenizer'
import { loadRun } from '../training/load-run'
import { fasterDtype } from '../training/machine-speed'
import { RunFolder } from '../training/run-folder'
import { Trainer } from '../training/trainer'
import { Transformer } from '../transformer'

/** Options of the quickstart. */
export interface QuickstartOptions {
  /** Folder for all output. */
  dir: string
  /** Approximate training time. */
  seconds: number
  device: string
  /** Receives messages for the user. */
  say: (text: string) => void
  /** Receives the trainer before it runs. */
  watch: (trainer: Trainer) => void
  signal: AbortSignal
}

/** Result of the quickstart. */
export interface QuickstartSummary {
  valLoss: number | null
  /** Entropy of the token frequencies in nats: the loss of a model that knows only these. */
  unigramEntropy: number
  sampleBefore: string
  sampleAfter: string
  run: string
  steps: number
  interrupted: boolean
}

const VOCAB_SIZE = 1024
const MODEL = {
  dModel: 192,
  numHeads: 6,
  dFf: 512,
  numLayers: 4,
  maxSeqLength: 64,
  seqLength: 64,
  batchSize: 16,
  theta: 10_000,
}
const PROMPT = 'The whale'
const SAMPLE = { maxTokens: 60, temperature: 0.7, topP: 0.9, seed: 1 }
/** Steps timed to choose the length of the run. */
const TIMED_STEPS = 8

/** Returns the path of the embedded text: Moby-Dick, which is in the public domain. */
export function embeddedText(): string {
  return join(__dirname, '..', '..', 'assets', 'moby-dick.txt')
}

export async function quickstart(options: QuickstartOptions): Promise<QuickstartSummary> {
  const { dir, say, signal, device } = options
  const text = embeddedText()
  const data = join(dir, 'data')

  const tokenizer = await Tokenizer.train([text], {
    vocabSize: VOCAB_SIZE,
    specialTokens: ['<|endoftext|>'],
    signal,
  })
  const { tokens, bytes } = await TokenStore.encodeFiles([text], tokenizer, data, {
    validFraction: 0.05,
    signal,
  })
  const store = await TokenStore.open(join(data, 'train_chunks'))
  const entropy = await store.tokenEntropy(VOCAB_SIZE)
  say(`Moby-Dick: ${bytes} bytes, ${tokens} tokens, vocabulary ${tokenizer.vocabSize}`)
  say(`loss of guessing by token frequency alone: ${entropy.toFixed(3)} nats per token`)

  const steps = await chooseSteps(store, options)
  const run = unusedRunFolder(dir)
  const trainer = new Trainer({
    ...MODEL,
    data,
    run,
    device,
    dtype: fasterDtype(device),
    maxSteps: steps,
    lr: 3e-3,
    lrMin: 3e-4,
    warmupRatio: 0.05,
    warmfixRatio: 1,
    weightDecay: 0.1,
    decay: 'matrices',
    betas: [0.9, 0.99],
    logInterval: Math.max(1, Math.floor(steps / 8)),
    evalInterval: Math.max(1, Math.floor(steps / 4)),
    saveInterval: 0,
    sampleInterval: 0,
  })
  const before = await sampleBefore(tokenizer, device)
  say(`before training: ${before}`)
  options.watch(trainer)
  const summary = await trainer.run({ signal })
  const after = await sampleAfter(run, device)
  return {
    valLoss: summary.valLoss,
    unigramEntropy: entropy,
    sampleBefore: before,
    sampleAfter: after,
    run,
    steps: summary.steps,
    interrupted: summary.interrupted,
  }
}

/** Times a few steps and returns how many fit into the requested time. */
async function chooseSteps(
  store: TokenStore,
  { seconds, device }: QuickstartOptions,
): Promise<number> {
  const model = newModel(device)
  const optimizer = new AdamW(model)
  const times: number[] = []
  for (let step = 1; step <= TIMED_STEPS; step++) {
    const started = performance.now()
    const { batchSize, seqLength } = MODEL
    await model.forwardBackward(store.batch({ batchSize, seqLength, step }))
    await optimizer.clipGradNorm(1)
    await optimizer.step({ lr: 0 })
    times.push(performance.now() - started)
  }
  await optimizer.close()
  await model.close()
  const typical = times.sort((a, b) => a - b)[TIMED_STEPS >> 1]!
  return Math.max(20, Math.floor((seconds * 1000) / typical))
}

function newModel(device: string): Transformer {
  return new Transformer({
    vocabSize: VOCAB_SIZE,
    dModel: MODEL.dModel,
    numHeads: MODEL.numHeads,
    dFf: MODEL.dFf,
    numLayers: MODEL.numLayers,
    maxSeqLength: MODEL.maxSeqLength,
    theta: MODEL.theta,
    device,
    dtype: fasterDtype(device),
  })
}

async function sampleBefore(tokenizer: Tokenizer, device: string): Promise<string> {
  const model = newModel(device)
  try {
    return await sampleText(model, tokenizer)
  } finally {
    await model.close()
  }
}

async function sampleAfter(run: string, device: string): Promise<string> {
  const { model, tokenizer } = await loadRun({ run, device })
  try {
    return await sampleText(model, tokenizer!)
  } finally {
    await model.close()
  }
}

async function sampleText(model: Transformer, tokenizer: Tokenizer): Promise<string> {
  let text = ''
  for await (const piece of generate(model, tokenizer, PROMPT, SAMPLE)) text += piece
  return text.replace(/\s+/g, ' ').trim()
}

/** Returns a path for the run at which no run exists yet. */
function unusedRunFolder(dir: string): string {
  for (let n = 1; ; n++) {
    const path = join(dir, 'runs', n === 1 ? 'moby-dick' : `moby-dick-${n}`)
    if (!new RunFolder(path).exists) return path
  }
}
