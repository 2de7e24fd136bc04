// A benchmark's results as a JSON file: what all rows share, then one list of them. The file is
// whole after every row, so that a run that is ended early leaves what it has measured: it is
// written beside the old one and put in its place. Rows are JSON already.
// Path: cold.
#pragma once

#include <string>

namespace plumb::testing {

class JsonRows {
  public:
    // Writes {head, "list": []}; `head` is members of the object. Nothing at all when path is
    // empty. Throws Error (io).
    JsonRows(std::string path, const std::string& head, const char* list);
    void add(const std::string& row);
    bool empty() const { return empty_; }

  private:
    void write() const;

    std::string path_;
    std::string text_;  // but its end
    bool empty_ = true;
};

}  // namespace plumb::testing
