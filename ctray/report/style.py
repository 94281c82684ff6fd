"""How the page looks: one style sheet, for screen, phone and paper."""

CSS = """
:root { --ink: #1f2933; --grey: #5f6b7a; --rule: #e1e6eb; --box: #ff8a00; --truth: #12b886;
  --view: #22b8e6; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 40px 24px 80px; max-width: 1208px; color: var(--ink);
  background: #fff; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums; }
h1, h2, h3, p, dl, dd, table, ul { margin: 0; padding: 0; }
h1 { font-size: 28px; line-height: 1.2; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 56px 0 16px; font-size: 20px; line-height: 1.3; font-weight: 650; }
h3 { font-size: 17px; line-height: 1.35; font-weight: 650; overflow-wrap: anywhere; }
h4 { margin: 0 0 8px; font-size: 15px; font-weight: 650; }
a { color: #0b5cad; text-decoration-thickness: 1px; text-underline-offset: 2px; }
code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.kind { margin-bottom: 4px; color: var(--grey); font-size: 13px; }
.where { margin-top: 4px; color: var(--grey); overflow-wrap: anywhere; }
.lead { margin-top: 20px; max-width: 46em; font-size: 17px; }
.note { margin: 8px 0 0; max-width: 60em; color: var(--grey); font-size: 13px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
  gap: 0 32px; margin-top: 28px; border-top: 1px solid var(--rule); }
.figures div { padding: 14px 0 4px; }
.figures dt { color: var(--grey); font-size: 13px; }
.figures dd { font-size: 24px; line-height: 1.3; font-weight: 600; }
.figures dd small { display: block; color: var(--grey); font-size: 13px; font-weight: 400; }
.scroll { overflow-x: auto; }
table { width: 100%; margin: 0; border-collapse: collapse; font-size: 14px; line-height: 1.4; }
table.narrow { max-width: 760px; }
th { padding: 6px 16px 6px 0; text-align: left; vertical-align: bottom; color: var(--grey);
  font-size: 13px; font-weight: 500; border-bottom: 1px solid #9aa5b1; }
td, tbody th { padding: 7px 16px 7px 0; vertical-align: top; border-bottom: 1px solid var(--rule); }
thead td { border-bottom-color: #9aa5b1; }
tbody th { color: var(--ink); font-size: 14px; font-weight: 500; }
td small, tbody th small { display: block; color: var(--grey); font-size: 12.5px; }
th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; white-space: nowrap; }
.id { overflow-wrap: anywhere; min-width: 9em; }
.box { white-space: nowrap; }
.reason { min-width: 16em; max-width: 34em; overflow-wrap: anywhere; }
tr.own th, tr.own td { font-weight: 650; }
tr.own small { font-weight: 400; }
.status { white-space: nowrap; }
.status::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 7px;
  border-radius: 50%; background: var(--grey); print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.status.located::before { background: #2f9e62; }
.status.located.unstated::before { background: none; border: 1.5px solid #2f9e62; }
.status.uncertain::before { background: #e0a100; }
.status.failed::before { background: #cf3030; }
.status.empty::before, .status.pending::before { background: none; border: 1.5px solid #7b8794; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 4px 24px; margin-top: 16px;
  font-size: 14px; }
.facts dt { color: var(--grey); }
.facts dd { overflow-wrap: anywhere; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 370px));
  gap: 8px 24px; }
.curves img { display: block; width: 100%; height: auto; }
.key { display: flex; flex-wrap: wrap; gap: 6px 24px; margin: 0 0 8px; padding: 0; list-style: none;
  color: var(--grey); font-size: 13px; }
.key svg { width: 28px; height: 12px; margin-right: 8px; vertical-align: -1px; }
section.volume { padding: 28px 0 32px; border-top: 1px solid var(--rule); break-inside: avoid; }
.head { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 16px; }
.head .sizes { margin-left: auto; }
.line { color: var(--grey); font-size: 14px; overflow-wrap: anywhere; }
.line b { color: var(--ink); font-weight: 500; }
.why { margin: 10px 0 0; padding-left: 12px; border-left: 3px solid var(--rule); max-width: 60em;
  overflow-wrap: anywhere; }
.why.failed { border-color: #cf3030; }
.why.uncertain { border-color: #e0a100; }
.views { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr));
  gap: 12px 24px; margin-top: 18px; }
.views figure { margin: 0; max-width: 400px; }
.views img { display: block; width: 100%; height: auto; }
.views figcaption { padding-left: 11%; color: var(--grey); font-size: 12.5px; }
@media (max-width: 700px) {
  body { padding: 24px 16px 48px; }
  h2 { margin-top: 40px; }
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: 10px; }
  .head .sizes { margin-left: 0; width: 100%; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 12px; }
  a { color: inherit; text-decoration: none; }
  .scroll { overflow: visible; }
  .views { grid-template-columns: repeat(3, 1fr); gap: 8px 12px; }
  h2 { break-after: avoid; }
  tr { break-inside: avoid; }
}
"""
