// How a running training is asked to save and end: SIGUSR1, SIGTERM, SIGHUP, SIGINT, or a file
// named `stop` in the run's folder. SIGHUP stays ignored where it was (nohup). The request is only
// noted here; the loop looks between two steps. A second SIGINT ends the process at once, for
// somebody who does not want to wait for the save.
// Path: hot.
#pragma once

#include <csignal>
#include <string>

namespace plumb {

class StopRequest {
  public:
    // Installs the handlers (one StopRequest at a time); the destructor puts the old ones back.
    explicit StopRequest(const std::string& folder);
    ~StopRequest();
    StopRequest(const StopRequest&) = delete;
    StopRequest& operator=(const StopRequest&) = delete;

    // What asked, e.g. "SIGTERM" or "the file run/stop"; nullptr when nothing did.
    const char* asked() const noexcept;
    // The request has been met: removes the file, so that the next start does not meet it again.
    void honoured() noexcept;

  private:
    std::string file_;
    std::string file_reason_;
    struct sigaction old_[4];
};

}  // namespace plumb
