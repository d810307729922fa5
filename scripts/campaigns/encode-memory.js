/**
 * Checks that encodeIterable encodes any amount of text in bounded memory: a stream of random lines
 * of Moby-Dick grows this process by less than 32 MiB.
 *
 * Usage: node scripts/campaigns/encode-memory.js [--megabytes 1024]
 */
const { text, claim, campaign, memoryMib, option } = require('./claims')
const fs = require('node:fs')
const { Tokenizer } = require('../../dist')

const LIMIT_MIB = 32
const PIECE = 64 * 1024

/**
 * Yields pieces of about 64 KiB of random lines (a linear congruential generator), `bytes` in
 * total.
 */
function* shuffledLines(lines, bytes) {
  let state = 1
  for (let made = 0; made < bytes;) {
    let piece = ''
    while (piece.length < PIECE) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      piece += `${lines[Math.floor((state / 2 ** 32) * lines.length)]}\n`
    }
    made += Buffer.byteLength(piece)
    yield piece
  }
}

/** Encodes `bytes` of text; returns the number of tokens and the peak memory of the process. */
async function encode(tokenizer, lines, bytes) {
  let tokens = 0
  let peak = 0
  for await (const block of tokenizer.encodeIterable(shuffledLines(lines, bytes))) {
    tokens += block.length
    peak = Math.max(peak, memoryMib('VmRSS'))
  }
  return { tokens, peak }
}

campaign(async () => {
  const megabytes = Number(option('megabytes', '1024'))
  const tokenizer = await Tokenizer.train([text], {
    vocabSize: 4096,
    specialTokens: ['<|endoftext|>'],
  })
  const lines = fs.readFileSync(text, 'utf8').split('\n')
  // The first 8 MB fill the caches and let V8 reach its working size. Growth is measured both from
  // there and from the start.
  const start = memoryMib('VmRSS')
  const warm = await encode(tokenizer, lines, 8e6)
  const started = Date.now()
  const { tokens, peak } = await encode(tokenizer, lines, megabytes * 1e6)
  const seconds = (Date.now() - started) / 1000
  const measured = `${(peak - start).toFixed(1)} MiB over ${tokens} tokens, ${(megabytes / seconds).toFixed(1)} MB/s`
  claim(
    `encodeIterable over ${megabytes} MB grows memory by less than ${LIMIT_MIB} MiB`,
    peak - start < LIMIT_MIB,
    measured,
  )
  const later = peak - warm.peak
  claim(
    'memory does not grow with the text',
    later < LIMIT_MIB / 2,
    `${later.toFixed(1)} MiB above the first 8 MB`,
  )
})
