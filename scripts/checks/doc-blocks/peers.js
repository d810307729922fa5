/**
 * Third-party packages that a page may need (`<!-- needs: package -->`). They are used if they are
 * installed (scripts/campaigns/exchange/fetch.js fetches them), and never fetched for a page.
 */
const fs = require('node:fs')
const path = require('node:path')
const fetch = require('../../campaigns/exchange/fetch')

const PEERS = {
  /** A Python with transformers. */
  transformers: () => {
    const python = fetch.python()
    return python && { python }
  },
  /** node-llama-cpp, linked into the node_modules of the page. */
  'node-llama-cpp': () => {
    const home = fetch.installedLlamaCpp()
    const modules = home && path.join(home, 'node_modules')
    return modules && { link: (folder) => linkModules(modules, folder) }
  },
}

/** Links the packages of a node_modules into that of another folder. */
function linkModules(from, folder) {
  for (const name of fs.readdirSync(from).filter((entry) => !entry.startsWith('.'))) {
    const link = path.join(folder, 'node_modules', name)
    if (!fs.existsSync(link)) fs.symlinkSync(path.join(from, name), link)
  }
}

/** Returns what runs a block that needs `name`; null if it is not installed. */
function peerOf(name) {
  const find = PEERS[name]
  if (find === undefined) throw new Error(`no page can need ${name}`)
  return find()
}

module.exports = { peerOf }
