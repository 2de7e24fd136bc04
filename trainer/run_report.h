// `plumb-train report`: a run as one HTML page that needs nothing but a browser. The page is
// report_page.html with the run's data in the place of its marker; its script draws the charts and
// puts every text in as text, so nothing in a log can become markup.
// Path: cold.
#pragma once

#include <string>

namespace plumb {

// The page with the marker RUN_DATA; made from report_page.html by the build.
extern const char* const kReportPage;

// Reads `folder`/log.jsonl and writes the page to `output`. Returns what to tell the user. Throws
// Error: io when the folder, the log or the output cannot be read or written; bad_input when
// `folder` is a file or the log has no line of a run.
std::string write_run_report(const std::string& folder, const std::string& output);

}  // namespace plumb
