/**
 * Checks what `npm start` promises: the model ends at least 1.5 nats per token below the unigram
 * entropy of the text, and its sample consists of English words.
 *
 * Usage: node scripts/campaigns/start.js [--seconds N] [--at-least 1.5]
 */
const { text, claim, campaign, kindlingJson, option } = require('./claims')
const fs = require('node:fs')
const path = require('node:path')
const { TokenStore } = require('../../dist')

/** Computes the entropy of a store's token frequencies in nats, independently of the library. */
async function unigramEntropy(folder) {
  const store = await TokenStore.open(folder)
  const counts = new Map()
  for (const id of await store.loadByRange(0, store.length))
    counts.set(id, (counts.get(id) ?? 0) + 1)
  const shares = [...counts.values()].map((count) => count / store.length)
  return -shares.reduce((sum, share) => sum + share * Math.log(share), 0)
}

function words(sample) {
  return sample.toLowerCase().match(/[a-z']+/g) ?? []
}

campaign(async (folder) => {
  const seconds = option('seconds')
  const started = Date.now()
  const summary = kindlingJson(
    'quickstart',
    '--dir',
    folder,
    ...(seconds ? ['--seconds', seconds] : []),
  )
  const minutes = (Date.now() - started) / 60_000
  claim('it takes less than 5 minutes', minutes < 5, `${minutes.toFixed(1)} minutes`)

  const store = fs
    .readdirSync(folder, { recursive: true })
    .find((name) => name.endsWith('train_chunks'))
  const entropy = await unigramEntropy(path.join(folder, store))
  const gain = entropy - summary.val_loss
  const atLeast = Number(option('at-least', '1.5'))
  const loss = summary.val_loss.toFixed(3)
  const measured = `entropy ${entropy.toFixed(3)}, loss ${loss}, ${gain.toFixed(3)} below`
  claim(
    `the validation loss is at least ${atLeast} nats below the unigram entropy`,
    gain >= atLeast,
    measured,
  )

  const known = new Set(words(fs.readFileSync(text, 'utf8')))
  const sample = words(summary.sample_after)
  const share = sample.filter((word) => known.has(word)).length / sample.length
  claim(
    'at least 9 of 10 words of the sample occur in the book',
    share >= 0.9,
    `${(100 * share).toFixed(0)}%`,
  )
  process.stdout.write(`sample: ${summary.sample_after}\n`)
})
