#include "admin/connections.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <optional>
#include <semaphore>
#include <vector>

namespace prism::admin {
namespace {

using namespace std::chrono_literals;

// The client's end of a connection.
class Client {
 public:
  explicit Client(Connections& connections) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    socket_ = ends[0];
    const timeval patience{.tv_sec = 30, .tv_usec = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    connections.take(ends[1]);
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  const Client& say(std::string_view text) const {
    EXPECT_EQ(::send(socket_, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
    return *this;
  }
  // All that comes until the connection is closed.
  std::string answer() const {
    std::string out;
    char buffer[65536];
    while (true) {
      const auto n = ::recv(socket_, buffer, sizeof buffer, 0);
      if (n < 0 && errno != ECONNRESET) return out + "(not closed)";
      if (n <= 0) return out;
      out.append(buffer, static_cast<std::size_t>(n));
    }
  }

 private:
  int socket_ = -1;
};

std::string echo(std::string_view request) { return "answer to " + std::string(request); }
bool urgent(std::string_view line) { return line.starts_with("GET /healthz"); }
bool begins(const std::string& text, std::string_view with) { return text.starts_with(with); }

TEST(Connections, ARequestIsAnsweredWhenItIsWhole) {
  Connections connections({}, echo, urgent);
  EXPECT_EQ(Client(connections).say("GET / HTTP/1.1\r\n\r\n").answer(), "answer to GET / HTTP/1.1\r\n\r\n");
  const Client slow(connections);
  slow.say("POST / HTTP/1.1\r\ncontent-LENGTH:  5 \r").say("\n\r\nab");
  EXPECT_EQ(Client(connections).say("GET /healthz HTTP/1.1\r\n\r\n").answer(),
            "answer to GET /healthz HTTP/1.1\r\n\r\n");
  EXPECT_EQ(slow.say("cdefgh").answer(), "answer to POST / HTTP/1.1\r\ncontent-LENGTH:  5 \r\n\r\nabcde");
  // Without a length there is no body: nothing is waited for.
  EXPECT_EQ(Client(connections).say("POST / HTTP/1.1\r\n\r\n").answer(), "answer to POST / HTTP/1.1\r\n\r\n");
}

TEST(Connections, WhatIsNotTakenIsRefusedAtOnce) {
  Connections connections({.head_bytes = 1000, .body_bytes = 100, .head = 10min, .body = 10min}, echo, urgent);
  const auto answer = [&](const std::string& request) { return Client(connections).say(request).answer(); };
  const auto large = answer("POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n");
  EXPECT_TRUE(begins(large, "HTTP/1.1 413 ")) << large;
  EXPECT_NE(large.find("the body has 101 bytes, and at most 100 are taken"), std::string::npos) << large;
  EXPECT_TRUE(begins(answer("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"), "HTTP/1.1 413 "));
  EXPECT_TRUE(begins(answer("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), "HTTP/1.1 411 "));
  EXPECT_TRUE(begins(answer("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), "HTTP/1.1 400 "));
  EXPECT_TRUE(begins(answer("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), "HTTP/1.1 400 "));
  EXPECT_TRUE(begins(answer("GET /" + std::string(1000, 'a')), "HTTP/1.1 431 "));
  // The answer arrives although the client goes on sending.
  const Client sends(connections);
  sends.say("POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n").say(std::string(60'000, 'x'));
  EXPECT_TRUE(begins(sends.answer(), "HTTP/1.1 413 "));
}

TEST(Connections, AClientThatIsTooSlowIsTold) {
  Connections connections({.head = 20ms, .body = 20ms}, echo, urgent);
  EXPECT_EQ(Client(connections).answer(), "") << "nothing was asked";
  EXPECT_TRUE(begins(Client(connections).say("GET / HT").answer(), "HTTP/1.1 408 "));
  EXPECT_TRUE(
      begins(Client(connections).say("PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\n1").answer(), "HTTP/1.1 408 "));
}

TEST(Connections, TheOldestGoesForANewOne) {
  Connections connections({.connections = 3, .head = 10min}, echo, urgent);
  std::vector<std::unique_ptr<Client>> idle;
  for (int i = 0; i < 3; ++i) {
    idle.push_back(std::make_unique<Client>(connections));
    idle.back()->say("GET / HT");
  }
  EXPECT_EQ(Client(connections).say("GET /new HTTP/1.1\r\n\r\n").answer(), "answer to GET /new HTTP/1.1\r\n\r\n");
  EXPECT_EQ(idle[0]->answer(), "");
  EXPECT_EQ(idle[2]->say("TP/1.1\r\n\r\n").answer(), "answer to GET / HTTP/1.1\r\n\r\n");
}

TEST(Connections, WhatIsHeldOfRequestsIsBounded) {
  Connections connections({.buffered_bytes = 200'000, .head = 10min, .body = 10min}, echo, urgent);
  const std::string begin = "POST / HTTP/1.1\r\nContent-Length: 150001\r\n\r\n" + std::string(150'000, 'x');
  const Client first(connections);
  first.say(begin);
  const Client second(connections);
  second.say(begin);
  EXPECT_EQ(first.answer(), "");
  EXPECT_EQ(second.say("x").answer(), "answer to " + begin + "x");
}

TEST(Connections, HealthIsAnsweredWhileEverythingElseIsBusy) {
  std::promise<void> go_on;
  const auto gate = go_on.get_future().share();
  std::binary_semaphore begun(0);
  std::atomic<bool> first = true;
  std::optional<Connections> connections;
  connections.emplace(
      Connections::Limits{.waiting = 2, .threads = 1},
      [&, gate](std::string_view request) {
        if (!urgent(request)) {
          if (first.exchange(false)) begun.release();
          gate.wait();
        }
        return echo(request);
      },
      urgent);
  std::vector<std::unique_ptr<Client>> busy;
  std::string refused;
  while (refused.empty()) {  // one is worked out, two wait, the fourth is refused
    busy.push_back(std::make_unique<Client>(*connections));
    busy.back()->say("GET /slow HTTP/1.1\r\n\r\n");
    if (busy.size() == 1) begun.acquire();
    EXPECT_EQ(Client(*connections).say("GET /healthz HTTP/1.1\r\n\r\n").answer(),
              "answer to GET /healthz HTTP/1.1\r\n\r\n");
    if (busy.size() > 3) refused = busy.back()->answer();
  }
  EXPECT_TRUE(begins(refused, "HTTP/1.1 503 ")) << refused;
  go_on.set_value();
  connections->stop();  // what is whole is answered
  EXPECT_EQ(busy[0]->answer(), "answer to GET /slow HTTP/1.1\r\n\r\n");
  EXPECT_EQ(busy[2]->answer(), "answer to GET /slow HTTP/1.1\r\n\r\n");
}

TEST(Connections, AClientThatDoesNotReadHoldsUpNobody) {
  const std::string large(20'000'000, 'a');
  Connections connections({.threads = 1}, [&](std::string_view) { return large; }, urgent);
  const Client lazy(connections);
  lazy.say("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(Client(connections).say("GET / HTTP/1.1\r\n\r\n").answer().size(), large.size());
  EXPECT_EQ(lazy.answer().size(), large.size());
}

}  // namespace
}  // namespace prism::admin
