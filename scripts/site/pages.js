/**
 * The pages of the site: the Markdown files of docs/ and a few others of the repository, with the
 * links between them rewritten to the places that the site gives them.
 */
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')

/** Pages outside docs/, by their place in the repository. */
const PROJECT_PAGES = {
  'ARCHITECTURE.md': 'project/architecture.md',
  'CONTRIBUTING.md': 'project/contributing.md',
  'SECURITY.md': 'project/security.md',
  'CHANGELOG.md': 'project/changelog.md',
}

/** The guides, in the order of reading. */
const GUIDES = [
  'index',
  'your-own-corpus',
  'run-clm',
  'data-at-scale',
  'resume',
  'gpu',
  'fine-tune',
  'hand-over',
  'custom-loops',
  'troubleshooting',
]

/** Groups of the sidebar: pages come in this order, then all others of the folder. */
const GROUPS = [
  { text: 'Start', pages: ['start.md'] },
  {
    text: 'Guides',
    folder: 'guides',
    pages: GUIDES.map((name) => `guides/${name}.md`),
  },
  { text: 'Examples', folder: 'examples', pages: [] },
  { text: 'Reference', folder: 'cli', pages: ['cli.md', 'errors.md'] },
  { text: 'Library', folder: 'api', pages: ['api/index.md'] },
  { text: 'Measurements', pages: ['performance.md', 'experiments.md', 'gpu-check.md'] },
  { text: 'Design', folder: 'design', pages: ['design/index.md'] },
  { text: 'Project', folder: 'project', pages: Object.values(PROJECT_PAGES) },
]

function filesUnder(folder) {
  return fs
    .readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(root, path.join(entry.parentPath ?? entry.path, entry.name)))
}

/** Returns the place of every page by its path in the repository. */
function placesOfPages() {
  const places = { ...PROJECT_PAGES, 'README.md': 'index.md' }
  for (const file of filesUnder('docs').filter((name) => name.endsWith('.md'))) {
    const place = path.posix.relative('docs', file)
    places[file] = place.replace(/(^|\/)README\.md$/, '$1index.md')
  }
  if (fs.existsSync(path.join(root, 'examples', 'README.md'))) {
    places['examples/README.md'] = 'examples/index.md'
  }
  return places
}

const LINK = /(!?)\[([^\]]*)\]\(([^)\s]+)\)/g

/**
 * Rewrites the links of a page. Links to files that are not pages, such as sources, become text.
 *
 * @param file - the page's path in the repository
 * @param places - the places of all pages
 */
function rewriteLinks(text, file, places) {
  const here = path.posix.dirname(places[file])
  const rewrite = (whole, mark, label, link) => {
    if (/^([a-z]+:|#)/.test(link)) return whole
    const [target, anchor] = link.split('#')
    const linked = path.posix.join(path.posix.dirname(file), target)
    if (!fs.existsSync(path.join(root, linked)) && !linked.startsWith('docs/api')) {
      throw new Error(`${file} links to ${linked}, which does not exist`)
    }
    const place = places[linked] ?? places[path.posix.join(linked, 'README.md')] ?? apiPlace(linked)
    const isImage = mark === '!' || linked.startsWith('docs/images/')
    const wanted = isImage ? path.posix.relative('docs', linked) : place
    if (wanted === undefined) return label
    const relative = path.posix.relative(here, wanted)
    const dotted = relative.startsWith('.') ? relative : `./${relative}`
    return `${mark}[${label}](${dotted}${anchor === undefined ? '' : `#${anchor}`})`
  }
  // Comments say which blocks are not run.
  return outsideCode(text, (prose) => prose.replace(/<!--[^]*?-->\n/g, '').replace(LINK, rewrite))
}

/** Returns the place of a page that typedoc writes, which is not in the repository. */
function apiPlace(linked) {
  if (!linked.startsWith('docs/api')) return undefined
  const place = path.posix.relative('docs', linked)
  return place.endsWith('.md') ? place : path.posix.join(place, 'index.md')
}

/** Applies `change` to the parts of Markdown outside fenced blocks. */
function outsideCode(text, change) {
  return text
    .split(/(^```[\s\S]*?^```$)/m)
    .map((part, i) => (i % 2 === 1 ? part : change(part)))
    .join('')
}

/** Writes all pages and pictures to `folder`. */
function writePages(folder) {
  const places = placesOfPages()
  for (const [file, place] of Object.entries(places)) {
    if (file === 'README.md') continue
    const text = fs.readFileSync(path.join(root, file), 'utf8')
    const target = path.join(folder, place)
    fs.mkdirSync(path.dirname(target), { recursive: true })
    fs.writeFileSync(target, rewriteLinks(text, file, places))
  }
  fs.cpSync(path.join(root, 'docs', 'images'), path.join(folder, 'images'), { recursive: true })
}

/** Returns the title of a page: its first heading. */
function titleOf(file) {
  const heading = /^# (.+)$/m.exec(fs.readFileSync(file, 'utf8'))
  if (heading === null) throw new Error(`${file} has no title`)
  // typedoc's titles begin with the kind of the name.
  return heading[1]
    .replace(/[`\\]/g, '')
    .replace(/^(Class|Interface|Function|Variable|Type Alias): /, '')
}

/** Returns the sidebar of the pages in `folder`, in VitePress's form. */
function sidebarOf(folder) {
  const all = fs
    .readdirSync(folder, { recursive: true })
    .map((name) => name.split(path.sep).join('/'))
    .filter((name) => name.endsWith('.md'))
    .sort()
  const groups = GROUPS.map(({ text, folder: place, pages }) => {
    const others = all.filter((name) => place && name.startsWith(`${place}/`))
    const names = [...new Set([...pages, ...others])].filter((name) => all.includes(name))
    const items = names.map((name) => ({
      text: titleOf(path.join(folder, name)),
      link: `/${name.replace(/(index)?\.md$/, '')}`,
    }))
    return { text, items, collapsed: ['Library', 'Design', 'Project'].includes(text) }
  })
  return groups.filter(({ items }) => items.length > 0)
}

module.exports = { sidebarOf, titleOf, writePages }
