// An HTTP server that answers as a test says: errors, answers that break off, none at all.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace prism::s3 {

class FakeServer {
 public:
  struct Request {
    std::string method, target;  // "/bucket/key?query"
    std::map<std::string, std::string> headers;
    std::string body;
  };
  struct Reply {
    int status = 200;
    std::map<std::string, std::string> headers;
    std::string body;
    std::optional<std::size_t> cut_after;  // bytes of the body; then the connection is closed
    bool silent = false;                   // no answer until the server ends
    bool hang_up = false;                  // no answer: the connection is closed
  };
  using Handler = std::function<Reply(const Request&)>;  // on a connection's thread

  // To a request whose body is still to come (Expect): an answer, after which the connection is closed, or none.
  using Early = std::function<std::optional<Reply>(const Request&)>;

  explicit FakeServer(Handler handler, Early early = nullptr) : handler_(std::move(handler)), early_(std::move(early)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listener_, 64);
    socklen_t size = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept(); });
  }
  ~FakeServer() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
      for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
    }
    end_.notify_all();
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    ::close(listener_);
    for (auto& thread : threads_) thread.join();
  }
  std::string address() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<Request> seen() const {
    const std::lock_guard lock(mutex_);
    return seen_;
  }

 private:
  void accept() {
    while (true) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      const std::lock_guard lock(mutex_);
      if (ending_) {
        ::close(fd);
        return;
      }
      open_.insert(fd);
      threads_.emplace_back([this, fd] { serve(fd); });
    }
  }

  static bool fill(int fd, std::string& buffer) {
    char part[65536];
    const ssize_t n = ::recv(fd, part, sizeof part, 0);
    if (n <= 0) return false;
    buffer.append(part, static_cast<std::size_t>(n));
    return true;
  }
  static bool send_all(int fd, std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  static std::string head_of(const Reply& reply) {
    std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " X\r\n";
    for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
    if (!reply.headers.contains("content-length"))
      head += "content-length: " + std::to_string(reply.body.size()) + "\r\n";
    return head;
  }

  void serve(int fd) {
    std::string buffer;
    while (true) {
      std::size_t end;
      bool alive = true;
      while ((end = buffer.find("\r\n\r\n")) == std::string::npos && (alive = fill(fd, buffer))) {
      }
      if (!alive) break;
      Request request;
      std::size_t at = buffer.find("\r\n");
      const std::string first = buffer.substr(0, at);
      request.method = first.substr(0, first.find(' '));
      request.target = first.substr(request.method.size() + 1, first.rfind(' ') - request.method.size() - 1);
      for (at += 2; at < end;) {
        const std::size_t next = buffer.find("\r\n", at);
        const std::size_t colon = buffer.find(':', at);
        std::string name = buffer.substr(at, colon - at);
        std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        const std::size_t value = buffer.find_first_not_of(' ', colon + 1);
        request.headers[name] = buffer.substr(value, next - value);
        at = next + 2;
      }
      buffer.erase(0, end + 4);
      if (request.headers.contains("expect")) {
        const auto refusal = early_ ? early_(request) : std::nullopt;
        if (refusal) {
          static_cast<void>(send_all(fd, head_of(*refusal) + "\r\n" + refusal->body));
          break;
        }
        if (!send_all(fd, "HTTP/1.1 100 Continue\r\n\r\n")) break;
      }
      const auto length = request.headers.find("content-length");
      const std::size_t size = length == request.headers.end() ? 0 : std::stoul(length->second);
      while (buffer.size() < size && (alive = fill(fd, buffer))) {
      }
      if (!alive) break;
      request.body = buffer.substr(0, size);
      buffer.erase(0, size);
      {
        const std::lock_guard lock(mutex_);
        seen_.push_back(request);
      }
      const Reply reply = handler_(request);
      if (reply.hang_up) break;
      if (reply.silent) {
        std::unique_lock lock(mutex_);
        end_.wait(lock, [this] { return ending_; });
        break;
      }
      const std::string_view body =
          request.method == "HEAD"
              ? std::string_view()
              : std::string_view(reply.body).substr(0, reply.cut_after.value_or(reply.body.size()));
      if (!send_all(fd, head_of(reply) + "\r\n") || !send_all(fd, body) || reply.cut_after) break;
    }
    const std::lock_guard lock(mutex_);
    open_.erase(fd);
    ::close(fd);
  }

  const Handler handler_;
  const Early early_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable end_;
  bool ending_ = false;  // guarded by mutex_, as are the following
  std::set<int> open_;
  std::vector<Request> seen_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace prism::s3
