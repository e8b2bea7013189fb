"""How a report looks: one style sheet, for a wide window, a telephone and paper. No script, nothing from elsewhere."""

from __future__ import annotations

SANS = 'system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","DejaVu Sans",sans-serif'
STYLE = (
    """
:root{color-scheme:light dark;--page:#f5f6f8;--soft:#f7f8fa;--good:#0b7a55;--bad:#b42318;--warm:#8a5a00;
--shadow:0 1px 2px rgb(16 24 40/6%)}
@media screen and (prefers-color-scheme:dark){:root{--page:#0e1116;--soft:#1c212a;--good:#4cc596;--bad:#ff8f82;
--warm:#e3b23c;--shadow:none}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 SANS;font-variant-numeric:tabular-nums}
main{max-width:1200px;margin:0 auto;padding:28px 20px 48px}
h1{font-size:26px;line-height:1.25;letter-spacing:-.015em;margin:2px 0 4px;overflow-wrap:anywhere}
h2{font-size:18px;margin:34px 0 12px;letter-spacing:-.01em}
h3{font-size:15px;margin:0 0 2px}
p{margin:0}
a{color:inherit;text-underline-offset:3px}
.quiet,figcaption{color:var(--quiet);font-size:13px}
.brand{font-size:13px;color:var(--quiet);letter-spacing:.02em}
.top{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:center}
.pill{border:1px solid currentColor;border-radius:99px;padding:1px 11px;font-size:13px;font-weight:600}
.done,.running{color:var(--good)}.failed{color:var(--bad)}.interrupted,.stopped{color:var(--warm)}
.tiles{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:12px;margin-top:20px}
.tile,.card{background:var(--card);border:1px solid var(--grid);border-radius:12px;box-shadow:var(--shadow)}
.tile{padding:12px 16px}
.tile b{display:block;font-size:21px;line-height:1.3;font-weight:650;letter-spacing:-.01em;
overflow-wrap:anywhere}
.tile span{color:var(--quiet);font-size:13px}
.cards{columns:2;column-gap:16px}
.cards .card{break-inside:avoid;margin-bottom:16px}
.card{margin:0;padding:16px 18px;min-width:0}
.stack>*+*{margin-top:14px}
.notes{border-left:4px solid var(--warm)}
.notes li+li{margin-top:4px}
ul{margin:0;padding-left:18px}
svg.figure{display:block;width:100%;height:auto;margin:8px 0 6px}
svg.figure text{font-family:SANS}
svg.figure *{stroke-linejoin:round;stroke-linecap:butt}
.scroll{overflow-x:auto}
.wide .scroll svg.figure{min-width:760px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:6px 10px;text-align:left;border-bottom:1px solid var(--grid);vertical-align:top}
td:nth-child(2):not(.n){min-width:140px}
.scroll+.quiet{margin-top:10px}
th{color:var(--quiet);font-weight:600;font-size:13px;vertical-align:bottom}
tr:last-child td{border-bottom:0}
td:first-child,th:first-child{padding-left:0}
.n{text-align:right;white-space:nowrap}
.dot{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
.tag{font-size:12.5px;font-weight:600;color:var(--quiet)}.tag.alarm{color:var(--bad)}.tag.cleared{color:var(--good)}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:4px 18px;margin:0;font-size:14px}
dt{color:var(--quiet)}dd{margin:0;overflow-wrap:anywhere}
code,pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{margin:10px 0 0;overflow-x:auto;background:var(--soft);border-radius:8px;padding:12px 14px}
summary{cursor:pointer;font-weight:600}
footer{margin-top:36px;color:var(--quiet);font-size:13px}
@media (max-width:860px){.cards{columns:1}main{padding:18px 12px 36px}h1{font-size:22px}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}.card{padding:14px}.tile b{font-size:18px}
dl{grid-template-columns:minmax(0,1fr);gap:0}dd{margin-bottom:8px}}
@media print{:root{--page:#fff}body{font-size:10pt}.quiet,figcaption{font-size:8.5pt}main{max-width:none;padding:0}
.tiles{grid-template-columns:repeat(4,minmax(0,1fr))}.cards{columns:2}.tile b{font-size:13pt}.tile span{font-size:8pt}
table{font-size:7.5pt}th{font-size:7pt;white-space:normal}th,td{padding:3px 4px}.card{padding:10px 12px}
td:nth-child(2):not(.n){min-width:0}
dl{grid-template-columns:max-content minmax(0,1fr);gap:2px 14px;font-size:9pt}dd{margin:0}
.card,.tile,tr{break-inside:avoid}
h2{break-after:avoid}.card,.tile{box-shadow:none}details pre{white-space:pre-wrap}.scroll{overflow:visible}
.wide .scroll svg.figure{min-width:0}@page{margin:15mm}}
"""
).replace("SANS", SANS)
