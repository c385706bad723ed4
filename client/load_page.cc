// A load as one HTML file: the waterfall under a time axis, at any width.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <string_view>

#include "client/load_profile.h"
#include "client/strings.h"
#include "client/units.h"

namespace hearth::client {
namespace {

// On a narrow screen the bars go below the numbers of their phase, and the words of the headings before them.
constexpr std::string_view kStyle = R"(
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.6em;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}
th,td{padding:.3em .6em;text-align:right;white-space:nowrap}th:first-child{text-align:left}
thead th{color:#666;font-weight:normal}tbody tr{border-top:1px solid #eee}
.time{width:55%;padding-left:0;padding-right:0}.time>div{position:relative;height:1.2em;margin:0 .6em}
.time i{position:absolute;top:0;bottom:0;border-left:1px solid #ddd}
.time b{position:absolute;top:0;bottom:0;border-radius:2px;background:#888}
.time span{position:absolute;padding-left:.2em;font-size:.85em}
.open{background:#a0cbe8!important}.map{background:#4e79a7!important}.verify{background:#ff9da7!important}.parse{background:#f28e2b!important}
.bind{background:#59a14f!important}.read{background:#e15759!important}.to_device{background:#b07aa1!important}
.populate{background:#76b7b2!important}.analyse{background:#9c755f!important}.warm_up{background:#edc948!important}
@media(max-width:760px){
table,thead,tbody{display:block}tr{display:flex;flex-wrap:wrap;column-gap:1em;padding:.4em 0}
th,td{padding:0;white-space:normal}td:empty{display:none}tbody th{flex-basis:100%}thead th:not(.time){display:none}
td[data-name]::before{content:attr(data-name) " ";color:#666}.time{flex-basis:100%;width:100%}.time>div{margin:0}
}
)";

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string Milliseconds(double ms) { return FormatSeconds(ms / 1000); }

std::string Percent(double part, double whole) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f%%", 100 * part / whole);
  return text;
}

// 1, 2 or 5 times a power of ten, so that there are three to seven of them.
double TickStep(double total) {
  const double power = std::pow(10, std::floor(std::log10(total / 2.5)));
  const double least = total / 2.5 / power;  // 1 and more, below 10
  return power * (least >= 5 ? 5 : least >= 2 ? 2 : 1);
}

std::string Ticks(double total, bool labels) {
  std::string out;
  const double step = TickStep(total);
  for (double at = 0; at < total; at += step) {
    const std::string place = Cat(" style=\"left:", Percent(at, total), "\"></i>");
    out += Cat("<i", place);
    // The last one would stick out.
    if (labels && at < total * 0.9) {
      out += Cat("<span style=\"left:", Percent(at, total), "\">", at == 0 ? "0" : Milliseconds(at), "</span>");
    }
  }
  return out;
}

std::string Bars(const PhaseStat& phase, double total) {
  std::string out;
  for (const PhasePartStat& part : PartsOf(phase)) {
    out += Cat("<b class=\"", Escaped(phase.name), "\" style=\"left:", Percent(part.start_milliseconds, total), ";width:",
               Percent(std::max(part.milliseconds, total * 0.0015), total), "\" title=\"", Escaped(phase.name), ": ",
               Milliseconds(part.milliseconds), " from ", Milliseconds(part.start_milliseconds), " on\"></b>");
  }
  return out;
}

std::string Row(const PhaseStat& phase, double total) {
  const auto cell = [](std::string_view name, const std::string& text) {
    return text.empty() ? std::string("<td></td>") : Cat("<td data-name=\"", name, "\">", text, "</td>");
  };
  return Cat("<tr><th>", Escaped(phase.name), "</th>", cell("start", Milliseconds(phase.start_milliseconds)),
             cell("time", Milliseconds(phase.milliseconds)), cell("CPU", Milliseconds(phase.cpu_milliseconds)),
             cell("bytes", phase.bytes > 0 ? FormatBytes(phase.bytes) : ""), cell("faults", Cat(phase.minor_faults)),
             cell("from disk", Cat(phase.major_faults)), "<td class=time><div>", Ticks(total, false), Bars(phase, total),
             "</div></td></tr>\n");
}

}  // namespace

std::string ToHtml(const LoadProfile& profile) {
  const double total = std::max(profile.total_milliseconds(), 1e-6);
  std::string rows;
  for (const PhaseStat& phase : profile.phases) rows += Row(phase, total);
  return Cat("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">"
             "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>",
             Escaped(profile.model), ": load</title><style>", kStyle, "</style><h1>", Escaped(profile.model), ": ",
             Milliseconds(profile.total_milliseconds()), "</h1><p>", Escaped(WeightsLine(profile.load)),
             "</p>\n<table><thead><tr><th>phase</th><th>start</th><th>time</th><th>CPU</th><th>bytes</th><th>faults</th>"
             "<th>from disk</th><th class=time><div>",
             Ticks(total, true), "</div></th></tr></thead><tbody>\n", rows, "</tbody></table><p><strong>",
             Escaped(Bottleneck(profile)), "</strong></p></html>\n");
}

}  // namespace hearth::client
