#include "admin/connections.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "admin/answers.h"

namespace prism::admin {
namespace {

constexpr auto kLinger = std::chrono::seconds(1);  // for what a refused client still sends, and at the end
constexpr std::string_view kEndOfHead = "\r\n\r\n";

std::string_view status_text(int status) {
  switch (status) {
    case 408:
      return "Request Timeout";
    case 411:
      return "Length Required";
    case 413:
      return "Payload Too Large";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Bad Request";
  }
}

std::string refusal(int status, Code code, std::string reason, std::string message, std::string hint) {
  const std::string body = to_text(
      {{"error", error_json({code, std::move(reason), std::move(message), std::move(hint), Retry::never, {}, {}})}});
  return "HTTP/1.1 " + std::to_string(status) + " " + std::string(status_text(status)) +
         "\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

bool same_name(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) { return (x | 0x20) == (y | 0x20); });
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// The length of the body that a head announces, or the answer that refuses it.
std::variant<std::size_t, std::string> body_length(std::string_view head, std::size_t most) {
  std::optional<std::size_t> length;
  std::size_t at = head.find("\r\n");
  while (at != std::string_view::npos && at + 2 < head.size()) {
    const std::size_t begin = at + 2;
    at = head.find("\r\n", begin);
    const auto line = head.substr(begin, at == std::string_view::npos ? at : at - begin);
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const auto name = line.substr(0, colon);
    const auto value = trimmed(line.substr(colon + 1));
    if (same_name(name, "transfer-encoding")) {
      return refusal(411, Code::invalid_argument, "LENGTH_REQUIRED", "a body in chunks is not read here",
                     "send the body as a whole, with the header Content-Length");
    }
    if (!same_name(name, "content-length")) continue;
    std::size_t given = 0;
    const auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), given);
    const bool too_large = problem == std::errc::result_out_of_range;
    if ((problem != std::errc() && !too_large) || end != value.data() + value.size() || (length && *length != given)) {
      return refusal(400, Code::invalid_argument, "BAD_REQUEST", "the header Content-Length is no length",
                     "send the number of bytes of the body, once");
    }
    if (too_large || given > most) {
      return refusal(
          413, Code::invalid_argument, "BODY_TOO_LARGE",
          "the body has " + std::string(value) + " bytes, and at most " + std::to_string(most) + " are taken here",
          "send a shorter one");
    }
    length = given;
  }
  return length.value_or(0);
}

struct Connection {
  enum class State : std::uint8_t { reading, working, writing, draining };
  int socket = -1;
  State state = State::reading;
  Clock::time_point end;  // of this state
  std::string in;
  std::optional<std::size_t> whole;  // bytes of the request; none: the head is not whole yet
  std::string out;
  std::size_t written = 0;
  bool unread = false;  // the client may still be sending: what it sends is read, or it would not get its answer
};

// Requests in the order in which they became whole.
class Workers {
 public:
  using Done = std::function<void(std::uint64_t id, std::string answer)>;
  Workers(std::size_t threads, Connections::Work work, Done done) : work_(std::move(work)), done_(std::move(done)) {
    for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
  }
  ~Workers() { end(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  bool add(std::uint64_t id, std::string&& request, std::size_t most) {
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.size() >= most) return false;
      waiting_.emplace_back(id, std::move(request));
    }
    changed_.notify_one();
    return true;
  }
  // When all that waits is worked out.
  void end() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    threads_.clear();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return ended_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      const auto [id, request] = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      done_(id, work_(request));
      lock.lock();
    }
  }

  const Connections::Work work_;
  const Done done_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<std::uint64_t, std::string>> waiting_;  // guarded by mutex_, as below
  bool ended_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace

class Connections::Impl {
 public:
  Impl(Limits limits, const Work& work, Urgent urgent)
      : limits_(limits),
        is_urgent_(std::move(urgent)),
        wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        others_(limits.threads, work, [this](std::uint64_t id, std::string answer) { done(id, std::move(answer)); }),
        urgent_(1, work, [this](std::uint64_t id, std::string answer) { done(id, std::move(answer)); }),
        thread_([this] { run(); }) {}

  ~Impl() { ::close(wake_); }

  void take(int socket) {
    ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
    {
      const std::lock_guard lock(mutex_);
      if (!ended_) {
        taken_.push_back(socket);
        socket = -1;
      }
    }
    if (socket >= 0) ::close(socket);
    wake();
  }

  void stop() {
    if (!thread_.joinable()) return;
    others_.end();
    urgent_.end();
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    wake();
    thread_.join();
  }

 private:
  using State = Connection::State;

  void wake() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(wake_, &one, sizeof one);
  }
  void done(std::uint64_t id, std::string answer) {
    {
      const std::lock_guard lock(mutex_);
      answers_.emplace_back(id, std::move(answer));
    }
    wake();
  }

  void run() {
    std::vector<pollfd> polled;
    std::vector<std::uint64_t> ids;  // as polled, but for its first
    std::optional<Clock::time_point> last;
    while (true) {
      const bool ended = adopt();
      if (ended && !last) last = Clock::now() + kLinger;
      if (ended && (Clock::now() >= *last || std::ranges::none_of(connections_, [](const auto& each) {
                      return each.second.state == State::writing;
                    })))
        break;
      make_room();
      polled.assign(1, {wake_, POLLIN, 0});
      ids.clear();
      auto next = last.value_or(Clock::now() + std::chrono::hours(1));
      for (const auto& [id, c] : connections_) {
        if (c.state == State::working) continue;
        polled.push_back({c.socket, static_cast<short>(c.state == State::writing ? POLLOUT : POLLIN), 0});
        ids.push_back(id);
        next = std::min(next, c.end);
      }
      const auto wait = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
      ::poll(polled.data(), polled.size(), static_cast<int>(std::clamp<std::int64_t>(wait, 0, 3'600'000)));
      const auto now = Clock::now();
      for (std::size_t i = 0; i < ids.size(); ++i) {
        Connection& c = connections_.at(ids[i]);
        bool open = true;
        if (polled[i + 1].revents != 0) open = go_on(ids[i], c, now);
        if (open && c.state != State::working && now >= c.end) open = out_of_time(c, now);
        if (!open) close(ids[i]);
      }
    }
    for (auto& [id, c] : connections_) ::close(c.socket);
    connections_.clear();
  }

  // What other threads have left here. Is it the end?
  bool adopt() {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto n = ::read(wake_, &count, sizeof count);
    const std::lock_guard lock(mutex_);
    for (const int socket : taken_) {
      Connection c;
      c.socket = socket;
      c.end = Clock::now() + limits_.head;
      connections_.emplace(++last_id_, std::move(c));
    }
    taken_.clear();
    for (auto& [id, answer] : answers_) {
      const auto it = connections_.find(id);
      if (it != connections_.end()) say(it->second, std::move(answer), false);
    }
    answers_.clear();
    return ended_;
  }

  void close(std::uint64_t id) {
    const auto it = connections_.find(id);
    ::close(it->second.socket);
    connections_.erase(it);
  }

  // Closes those that have kept it waiting longest while there are too many, or too much of them is held.
  void make_room() {
    std::size_t held = 0;
    for (const auto& [id, c] : connections_) held += c.state == State::reading ? c.in.size() : 0;
    for (auto it = connections_.begin(); it != connections_.end();) {
      const bool many = connections_.size() > limits_.connections;
      const bool much = held > limits_.buffered_bytes && it->second.state == State::reading;
      if (!many && held <= limits_.buffered_bytes) return;
      if ((many && it->second.state != State::working) || much) {
        if (it->second.state == State::reading) held -= it->second.in.size();
        ::close(it->second.socket);
        it = connections_.erase(it);
      } else {
        ++it;
      }
    }
    // Only requests that are worked out: the newest ones go.
    while (connections_.size() > limits_.connections) {
      ::close(connections_.rbegin()->second.socket);
      connections_.erase(std::prev(connections_.end()));
    }
  }

  void say(Connection& c, std::string answer, bool unread) const {
    c.in = std::string();
    c.out = std::move(answer);
    c.unread = unread;
    c.state = State::writing;
    c.end = Clock::now() + limits_.write;
  }

  // false: to be closed.
  bool go_on(std::uint64_t id, Connection& c, Clock::time_point now) {
    switch (c.state) {
      case State::reading:
        return read(id, c, now);
      case State::writing:
        return write(c, now);
      case State::draining: {
        std::array<char, 65536> buffer;
        const auto n = ::recv(c.socket, buffer.data(), buffer.size(), 0);
        return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
      }
      case State::working:
        return true;
    }
    return true;
  }

  bool read(std::uint64_t id, Connection& c, Clock::time_point now) {
    std::array<char, 65536> buffer;
    const auto n = ::recv(c.socket, buffer.data(), buffer.size(), 0);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    c.in.append(buffer.data(), static_cast<std::size_t>(n));
    if (!c.whole) {
      const auto end = c.in.find(kEndOfHead);
      const auto head = end == std::string::npos ? c.in.size() : end + kEndOfHead.size();
      if (head > limits_.head_bytes) {
        say(c,
            refusal(431, Code::invalid_argument, "HEAD_TOO_LARGE",
                    "request line and headers have more than " + std::to_string(limits_.head_bytes) + " bytes",
                    "send fewer or shorter headers"),
            true);
        return true;
      }
      if (end == std::string::npos) return true;
      auto length = body_length(std::string_view(c.in).substr(0, end), limits_.body_bytes);
      if (auto* refused = std::get_if<std::string>(&length)) {
        say(c, std::move(*refused), true);
        return true;
      }
      c.whole = head + std::get<std::size_t>(length);
      c.end = now + limits_.body;
    }
    if (c.in.size() < *c.whole) return true;
    c.in.resize(*c.whole);
    const bool urgent = is_urgent_(std::string_view(c.in).substr(0, c.in.find("\r\n")));
    c.state = State::working;
    if (!(urgent ? urgent_ : others_).add(id, std::move(c.in), limits_.waiting)) {
      say(c,
          refusal(503, Code::unavailable, "SERVER_BUSY",
                  std::to_string(limits_.waiting) + " requests wait to be answered here already", "try again later"),
          false);
    }
    return true;
  }

  bool write(Connection& c, Clock::time_point now) {
    const auto n = ::send(c.socket, c.out.data() + c.written, c.out.size() - c.written, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    c.written += static_cast<std::size_t>(n);
    if (c.written < c.out.size()) return true;
    if (!c.unread) return false;
    ::shutdown(c.socket, SHUT_WR);
    c.state = State::draining;
    c.end = now + kLinger;
    return true;
  }

  bool out_of_time(Connection& c, Clock::time_point now) const {
    if (c.state != State::reading || c.in.empty()) return false;
    say(c,
        refusal(408, Code::deadline_exceeded, "REQUEST_INCOMPLETE", "the request did not come in time",
                "send it at once"),
        true);
    c.end = now + kLinger;
    return true;
  }

  const Limits limits_;
  const Urgent is_urgent_;
  const int wake_;
  std::map<std::uint64_t, Connection> connections_;  // in the order of arrival; of the one thread, as last_id_
  std::uint64_t last_id_ = 0;

  std::mutex mutex_;
  std::vector<int> taken_;  // guarded by mutex_, as below
  std::vector<std::pair<std::uint64_t, std::string>> answers_;
  bool ended_ = false;

  Workers others_, urgent_;
  std::thread thread_;
};

Connections::Connections(Limits limits, Work work, Urgent urgent)
    : impl_(std::make_unique<Impl>(limits, work, std::move(urgent))) {}
Connections::~Connections() { stop(); }
void Connections::take(int socket) { impl_->take(socket); }
void Connections::stop() { impl_->stop(); }

}  // namespace prism::admin
