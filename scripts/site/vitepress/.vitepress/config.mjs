/** Configuration of the site. scripts/site/build.js prepares the pages and sidebar.json. */
import { readFileSync } from 'node:fs'

const sidebar = JSON.parse(readFileSync(new URL('sidebar.json', import.meta.url), 'utf8'))

/** Names the anchor of a heading as GitHub does, so that links work in both places. */
function slugify(heading) {
  return heading
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replace(/\s/g, '-')
}

const FLAME =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="#c2570f" ' +
  'd="M8 1c1 3 4 4 4 8.500a4 4.500 0 0 1-8 0C4 7 6 6 6 4c1 .5 1.500 1.500 1.500 3C8.500 5 8.500 3 8 1z"/></svg>'

// oxlint-disable-next-line import/no-default-export -- VitePress reads the default export.
export default {
  title: 'Kindling',
  description: 'Train Transformer language models inside Node.js.',
  lang: 'en',
  // A flame, as a data URL so that nothing is requested.
  head: [['link', { rel: 'icon', href: `data:image/svg+xml,${encodeURIComponent(FLAME)}` }]],
  srcDir: 'pages',
  outDir: 'html',
  markdown: { anchor: { slugify }, toc: { slugify } },
  themeConfig: {
    nav: [
      { text: 'Start', link: '/start' },
      { text: 'Guides', link: '/guides/', activeMatch: '/guides/' },
      { text: 'Commands', link: '/cli', activeMatch: '/cli' },
      { text: 'Library', link: '/api/', activeMatch: '/api/' },
      { text: 'Errors', link: '/errors' },
    ],
    sidebar,
    outline: [2, 3],
    search: { provider: 'local' },
    docFooter: { prev: true, next: true },
  },
}
