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

// oxlint-disable-next-line import/no-default-export -- VitePress reads the default export.
export default {
  title: 'Kindling',
  description: 'Train Transformer language models inside Node.js.',
  lang: 'en',
  srcDir: 'pages',
  outDir: 'html',
  // Pages contain no HTML of their own; <n> in prose is text.
  markdown: { html: false, anchor: { slugify }, toc: { slugify } },
  themeConfig: {
    nav: [
      { text: 'Start', link: '/start' },
      { text: 'Guides', link: '/guides/', activeMatch: '/guides/' },
      { text: 'Commands', link: '/cli', activeMatch: '/cli' },
      { text: 'Errors', link: '/errors' },
    ],
    sidebar,
    outline: [2, 3],
    search: { provider: 'local' },
    docFooter: { prev: true, next: true },
  },
}
