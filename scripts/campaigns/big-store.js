/**
 * Checks that a 4 GB token store opens instantly, and that a batch touches only its own pages. The
 * chunks are sparse files: they take no disk space, but every page read from them becomes resident.
 *
 * Usage: node scripts/campaigns/big-store.js [--gigabytes 4]
 */
const { claim, campaign, memoryMib, option } = require('./claims')
const fs = require('node:fs')
const path = require('node:path')
const { TokenStore } = require('../../dist')

const CHUNK_TOKENS = 500_000
const BATCH = { batchSize: 32, seqLength: 256, seed: 1 }
// A window of 257 tokens lies in at most two pages, possibly of two chunks. The kernel maps up to
// 64 KiB around each fault.
const MIB_PER_WINDOW = (2 * 64) / 1024

function bytesRead() {
  return Number(/^read_bytes: (\d+)/m.exec(fs.readFileSync('/proc/self/io', 'utf8'))[1])
}

campaign(async (folder) => {
  const tokens = Number(option('gigabytes', '4')) * 250_000_000
  const store = path.join(folder, 'big_chunks')
  fs.mkdirSync(store)
  for (let n = 0; n * CHUNK_TOKENS < tokens; n++) {
    const file = path.join(store, `encoded_tokens_chunk_${n}.dat`)
    fs.writeFileSync(file, '')
    fs.truncateSync(file, 4 * Math.min(CHUNK_TOKENS, tokens - n * CHUNK_TOKENS))
  }
  const before = {
    rss: memoryMib('VmRSS'),
    file: memoryMib('RssFile'),
    read: bytesRead(),
    time: performance.now(),
  }
  const opened = await TokenStore.open(store)
  const openedMs = performance.now() - before.time
  const openedMib = memoryMib('VmRSS') - before.rss
  claim('the store has all tokens', opened.length === tokens, `${opened.length} tokens`)
  claim('it opens within a second', openedMs < 1000, `${openedMs.toFixed(1)} ms`)
  claim('opening takes less than 16 MiB', openedMib < 16, `${openedMib.toFixed(1)} MiB`)

  const file = memoryMib('RssFile')
  const batch = opened.batch({ ...BATCH, step: 1 })
  const touched = memoryMib('RssFile') - file
  const most = BATCH.batchSize * MIB_PER_WINDOW + 1
  claim('a batch has the requested shape', batch.x.length === BATCH.batchSize * BATCH.seqLength)
  claim(
    `a batch touches at most ${most} MiB of the store`,
    touched <= most,
    `${touched.toFixed(2)} MiB`,
  )

  const last = await opened.loadByRange(tokens - 3, tokens)
  claim('a range can end at the end of the store', last.length === 3)
  const read = (bytesRead() - before.read) / 2 ** 20
  claim('less than 64 MiB are read from the disk', read < 64, `${read.toFixed(1)} MiB`)
})
