// What is Kafka's own: how records look to others, who may log in, what happens while brokers are away.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "backends/kafka/producer.h"
#include "backends/kafka/topics.h"
#include "backends/kafka/world_for_test.h"

namespace prism::kafka {
namespace {

// Stands between the clients of a test and the broker, and can be cut. There is one for all processes that run tests:
// whoever needs it waits for it.
class Proxy {
 public:
  Proxy() {
    if (lock_ < 0 || flock(lock_, LOCK_EX) != 0) throw std::runtime_error("the proxy's lock cannot be taken");
    ask("POST", "/proxies",
        R"({"name": "kafka", "listen": ")" + variable("PRISM_TEST_KAFKA_PROXY_LISTEN") + R"(", "upstream": ")" +
            variable("PRISM_TEST_KAFKA_PROXY_UPSTREAM") + R"(", "enabled": true})");
    cut(false);
  }
  ~Proxy() {
    ask("DELETE", "/proxies/kafka", "");
    close(lock_);
  }
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;
  void cut(bool now) { ask("POST", "/proxies/kafka", now ? R"({"enabled": false})" : R"({"enabled": true})"); }

 private:
  static void ask(const std::string& method, const std::string& path, const std::string& body) {
    const std::string url = variable("PRISM_TEST_TOXIPROXY");  // "http://127.0.0.1:8474"
    const auto colon = url.rfind(':');
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(url.substr(colon + 1))));
    inet_pton(AF_INET, url.substr(7, colon - 7).c_str(), &address.sin_addr);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      throw std::runtime_error("toxiproxy does not answer");
    const std::string request =
        method + " " + path +
        " HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
        body;
    if (write(fd, request.data(), request.size()) < 0) throw std::runtime_error("toxiproxy does not listen");
    char answer[4096];
    while (read(fd, answer, sizeof answer) > 0) {
    }
    close(fd);
  }

  static std::string lock_path() {  // by the port of the proxy's server
    const std::string url = variable("PRISM_TEST_TOXIPROXY");
    return (std::filesystem::temp_directory_path() / ("prism-kafka-proxy-" + url.substr(url.rfind(':') + 1))).string();
  }

  int lock_ = ::open(lock_path().c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
};

struct KafkaTest : testing::Test {
  World world;
  static Context soon() { return Context().with_timeout(std::chrono::seconds(60)); }
  static Record record(std::string key, std::string body) {
    return {.id = uuid7(), .key = std::move(key), .headers = {}, .body = Bytes(std::move(body))};
  }
  Result<void> check(Options options) {
    TestLog log(world.runtime, std::move(options));
    return run_blocking(log.log->check(Context().with_timeout(std::chrono::seconds(5))));
  }
  Options door(const char* variable_name) const {
    Options options = world.options;
    options.brokers = {variable(variable_name)};
    return options;
  }
  static Options as(Options options, const char* user, const char* password) {
    options.login_user = variable(user);
    options.login_password = config::Secret(variable(password));
    return options;
  }
  static std::string reason(const Result<void>& result) { return result ? "ok" : result.error().reason; }
};

// proves: L-02
TEST_F(KafkaTest, OthersReadAndWriteTheSameRecords) {
  TestLog log(world.runtime, world.options);
  const auto info = must(run_blocking(log->ensure_topic(soon(), {.name = "orders", .partitions = 3})));
  Record sent = record("key-1", "body");
  sent.headers = {{"tenant", Bytes("t1")}};
  const auto at = must(run_blocking(log->append(soon(), "orders", {sent})).at(0)).at.parts().at(0);
  // As the Java client would have it: murmur2("key-1"), positive, modulo 3.
  EXPECT_EQ(at.partition,
            static_cast<std::uint32_t>(rd_kafka_msg_partitioner_murmur2(nullptr, "key-1", 5, 3, nullptr, nullptr)));

  Connection connection("test", world.options);
  Conf conf = must(connection.conf());
  rd_kafka_t* const consumer = must(connection.make(RD_KAFKA_CONSUMER, std::move(conf)));
  const std::string topic = world.options.prefix + "orders";
  {
    const TopicHandle handle(rd_kafka_topic_new(consumer, topic.c_str(), nullptr));
    rd_kafka_consume_start(handle.get(), static_cast<std::int32_t>(at.partition), 0);
    rd_kafka_message_t* const message = rd_kafka_consume(handle.get(), static_cast<std::int32_t>(at.partition), 20'000);
    ASSERT_NE(message, nullptr);
    EXPECT_EQ(std::string(static_cast<char*>(message->payload), message->len), "body");
    EXPECT_EQ(std::string(static_cast<char*>(message->key), message->key_len), "key-1");
    rd_kafka_headers_t* headers = nullptr;
    rd_kafka_message_headers(message, &headers);
    std::map<std::string, std::string> seen;
    const char* name = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    for (std::size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR;
         ++i)
      seen.emplace(name, std::string(static_cast<const char*>(value), size));
    EXPECT_EQ(seen, (std::map<std::string, std::string>{{"ce_specversion", "1.0"},
                                                        {"ce_id", sent.id},
                                                        {"ce_source", "prism"},
                                                        {"ce_type", "prism.message"},
                                                        {"tenant", "t1"}}));
    rd_kafka_message_destroy(message);
    rd_kafka_consume_stop(handle.get(), static_cast<std::int32_t>(at.partition));
  }
  rd_kafka_destroy(consumer);

  rd_kafka_t* const producer = must(connection.make(RD_KAFKA_PRODUCER, must(connection.conf())));
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wgnu-statement-expression-from-macro-expansion"
  rd_kafka_producev(producer, RD_KAFKA_V_TOPIC(topic.c_str()), RD_KAFKA_V_PARTITION(0),
                    RD_KAFKA_V_VALUE(const_cast<char*>("theirs"), 6), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                    RD_KAFKA_V_HEADER("x", "1", 1), RD_KAFKA_V_HEADER("ce_id", "their-id", 8), RD_KAFKA_V_END);
#pragma clang diagnostic pop
  EXPECT_EQ(rd_kafka_flush(producer, 20'000), RD_KAFKA_RESP_ERR_NO_ERROR);
  rd_kafka_destroy(producer);
  auto reader = must(run_blocking(log->read(soon(), "orders", 0, {})));
  Record theirs;
  while (theirs.body.empty()) {
    for (auto& [r, position] : must(run_blocking(reader->next(soon(), 1 << 20)))) {
      if (r.body == "theirs") theirs = r;
    }
  }
  EXPECT_EQ(theirs.id, "their-id");
  EXPECT_EQ(theirs.headers, (Headers{{"x", Bytes("1")}, {"ce_id", Bytes("their-id")}}));
  EXPECT_GT(info.max_record_bytes, 1'000'000U);
}

TEST_F(KafkaTest, NamesOfAnyKindAreTaken) {
  TestLog log(world.runtime, world.options);
  const std::string name = "a/b c\xc3\xa4-x2f-";
  const auto made = must(run_blocking(log->ensure_topic(soon(), {.name = name})));
  EXPECT_EQ(made.name, name);
  EXPECT_EQ(must(run_blocking(log->topics(soon()))).at(0).name, name);
  ASSERT_TRUE(run_blocking(log->append(soon(), name, {record("k", "v")})).at(0));
  EXPECT_EQ(run_blocking(log->ensure_topic(soon(), {.name = std::string(100, '/')})).error().reason, "INVALID_TOPIC");
}

// The broker refuses whole batches: none may be larger than its topic takes.
TEST_F(KafkaTest, ATopicThatTakesLittleIsGivenLittleAtOnce) {
  world.make_topic("small", "max.message.bytes", "10000");
  world.options.linger = std::chrono::milliseconds(50);
  TestLog log(world.runtime, world.options);
  const auto info = must(run_blocking(log->topic(soon(), "small")));
  EXPECT_LT(info.max_record_bytes, 10'000U);
  EXPECT_GT(info.max_record_bytes, 8'000U);
  Batch<Record> batch;
  for (int i = 0; i < 200; ++i) batch.push_back(record("k", std::string(1'000, 'x')));
  batch.push_back(record("other", std::string(info.max_record_bytes, 'x')));
  const auto results = run_blocking(log->append(soon(), "small", std::move(batch)));
  for (std::size_t i = 0; i < 200; ++i) ASSERT_TRUE(results[i]) << results[i].error().describe();
  EXPECT_EQ(results[200].error().reason, "RECORD_TOO_LARGE");
}

TEST_F(KafkaTest, RecordsWithoutKeyThatComeTogetherStayTogether) {
  TestLog log(world.runtime, world.options);
  must(run_blocking(log->ensure_topic(soon(), {.name = "orders", .partitions = 8})));
  std::set<std::uint32_t> all;
  for (int round = 0; round < 30; ++round) {
    Batch<Record> batch;
    for (int i = 0; i < 10; ++i) batch.push_back(record("", "x"));
    std::set<std::uint32_t> partitions;
    for (const auto& result : run_blocking(log->append(soon(), "orders", std::move(batch))))
      partitions.insert(must(Result<Appended>(result)).at.parts().at(0).partition);
    EXPECT_EQ(partitions.size(), 1U);
    all.insert(partitions.begin(), partitions.end());
    const auto next = Clock::now() + std::chrono::milliseconds(10);
    while (all.size() < 2 && Clock::now() < next) std::this_thread::yield();
  }
  EXPECT_GE(all.size(), 2U);
}

TEST_F(KafkaTest, WhoMayLogInDoes) {
  EXPECT_EQ(reason(check(door("PRISM_TEST_KAFKA"))), "ok");
  EXPECT_EQ(reason(check(as(door("PRISM_TEST_KAFKA_SASL"), "PRISM_TEST_KAFKA_USER", "PRISM_TEST_KAFKA_PASSWORD"))),
            "ok");
  Options tls = door("PRISM_TEST_KAFKA_TLS");
  tls.tls = client::TlsOptions{.ca_file = variable("PRISM_TEST_CA"),
                               .cert_file = variable("PRISM_TEST_CLIENT_CERT"),
                               .key_file = variable("PRISM_TEST_CLIENT_KEY")};
  EXPECT_EQ(reason(check(tls)), "ok");
  Options both = as(door("PRISM_TEST_KAFKA_SASL_TLS"), "PRISM_TEST_KAFKA_USER", "PRISM_TEST_KAFKA_PASSWORD");
  both.tls = client::TlsOptions{.ca_file = variable("PRISM_TEST_CA")};
  TestLog log(world.runtime, both);
  must(run_blocking(log->ensure_topic(soon(), {.name = "secure"})));
  EXPECT_TRUE(run_blocking(log->append(soon(), "secure", {record("k", "v")})).at(0));
}

TEST_F(KafkaTest, WhoMayNotIsToldWhy) {
  Options wrong = as(door("PRISM_TEST_KAFKA_SASL"), "PRISM_TEST_KAFKA_USER", "PRISM_TEST_KAFKA_PASSWORD");
  wrong.login_password = config::Secret("hunter2-secret");
  {
    TestLog log(world.runtime, wrong);
    auto checked = run_blocking(log.log->check(Context().with_timeout(std::chrono::seconds(3))));
    ASSERT_FALSE(checked);
    EXPECT_EQ(checked.error().reason, "BACKEND_AUTHENTICATION_FAILED");
    EXPECT_EQ(checked.error().describe().find("hunter2"), std::string::npos);
    const auto before = Clock::now();
    const auto appended = run_blocking(log->append(soon(), "orders", {record("k", "v")})).at(0);
    EXPECT_EQ(appended.error().reason, "BACKEND_AUTHENTICATION_FAILED");  // at once, without asking again
    EXPECT_LT(Clock::now() - before, std::chrono::seconds(1));
  }
  if (rd_kafka_version() < 0x02060100) {  // whose SCRAM Kafka 4 refuses
    Options scram = as(door("PRISM_TEST_KAFKA_SASL"), "PRISM_TEST_KAFKA_USER", "PRISM_TEST_KAFKA_PASSWORD");
    scram.mechanism = Mechanism::scram_sha_256;
    const auto checked = check(scram);
    EXPECT_EQ(reason(checked), "BACKEND_AUTHENTICATION_FAILED");
    EXPECT_THAT(checked.error().hint, testing::HasSubstr("librdkafka 2.6.1"));
  }
  Options stranger = door("PRISM_TEST_KAFKA_TLS");
  stranger.tls = client::TlsOptions{.ca_file = variable("PRISM_TEST_UNTRUSTED_CA")};
  EXPECT_EQ(reason(check(stranger)), "BACKEND_TLS_FAILED");
  Options missing = door("PRISM_TEST_KAFKA_TLS");
  missing.tls = client::TlsOptions{.ca_file = "/no/such/ca.pem"};
  const auto opened = open_event_log(world.runtime, "test-kafka", missing);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().reason, "BACKEND_TLS_FAILED");
  const Options limited =
      as(door("PRISM_TEST_KAFKA_SASL"), "PRISM_TEST_KAFKA_LIMITED_USER", "PRISM_TEST_KAFKA_LIMITED_PASSWORD");
  EXPECT_EQ(reason(check(limited)), "ok");  // the server answers
  TestLog log(world.runtime, limited);
  const auto refused = run_blocking(log->ensure_topic(soon(), {.name = "orders"}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "BACKEND_PERMISSION_DENIED");
}

TEST_F(KafkaTest, AGroupThatTheRestOfTheWorldCommittedForGoesOnThere) {
  TestLog log(world.runtime, world.options);
  must(run_blocking(log->ensure_topic(soon(), {.name = "orders", .partitions = 1})));
  Batch<Record> batch;
  for (int i = 0; i < 5; ++i) batch.push_back(record("k", std::to_string(i)));
  run_blocking(log->append(soon(), "orders", std::move(batch)));
  {
    Connection connection("test", world.options);
    Admin admin(connection);
    PartitionList offsets;
    offsets.add(world.options.prefix + "orders", 0, 3, "somebody's own words");
    EXPECT_TRUE(must(admin.commit(world.options.prefix + "billing", offsets, Clock::now() + std::chrono::seconds(20))));
  }
  GroupSpec spec;
  spec.topic = "orders";
  spec.group = "billing";
  auto consumer = must(run_blocking(log->join(soon(), spec)));
  const auto got = must(run_blocking(consumer->receive(soon(), 1, 1 << 20)));
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got[0].record.body, "3");
  run_blocking(consumer->close(soon()));
}

TEST_F(KafkaTest, AProducerThatCannotGoOnSaysSo) {
  const auto connection = std::make_shared<Connection>("test-kafka", world.options);
  auto producer = must(Producer::open(connection, world.runtime.next_loop(), 100'000));
  EXPECT_FALSE(producer->broken());
  rd_kafka_test_fatal_error(producer->client(), RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "for a test");
  const auto end = Clock::now() + std::chrono::seconds(30);
  while (!producer->broken() && Clock::now() < end) std::this_thread::yield();
  EXPECT_TRUE(producer->broken());
  Topic topic{.name = "orders", .wire = "orders", .max_message_bytes = 1'000'000};
  const auto result =
      run_blocking(Producer::append(producer, soon(), std::make_shared<const Topic>(topic), {record("k", "v")})).at(0);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(result.error().retry, Retry::safe);
  producer->close(Clock::now());
}

// proves: L-24
TEST_F(KafkaTest, WhatIsAcknowledgedArrivesThoughTheBrokerGoesAndComes) {
  Proxy proxy;
  const Options options = door("PRISM_TEST_KAFKA_PROXY_LISTEN");
  TestLog log(world.runtime, options);
  TestLog other(world.runtime, options);
  must(run_blocking(log->ensure_topic(soon(), {.name = "orders", .partitions = 4})));
  std::mutex mutex;
  std::set<std::string> acknowledged;  // guarded by mutex
  std::set<std::string> seen;          // guarded by mutex
  std::atomic<bool> appending{true};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; appending; ++i) {
        Record r = record("k" + std::to_string(t * 10 + i % 10), "x");
        const std::string id = r.id;
        const auto result = run_blocking(log->append(Context().with_timeout(std::chrono::seconds(20)), "orders", {r}));
        if (!result[0]) continue;
        const std::lock_guard lock(mutex);
        acknowledged.insert(id);
      }
    });
  }
  const auto all_seen = [&] {
    const std::lock_guard lock(mutex);
    return !appending && std::includes(seen.begin(), seen.end(), acknowledged.begin(), acknowledged.end());
  };
  const auto end = Clock::now() + std::chrono::seconds(90);
  for (TestLog* via : {&log, &other}) {
    threads.emplace_back([&, via] {
      GroupSpec spec;
      spec.topic = "orders";
      spec.group = "billing";
      auto consumer = must(run_blocking((*via)->join(soon(), spec)));
      while (!all_seen() && Clock::now() < end) {
        auto got =
            run_blocking(consumer->receive(Context().with_timeout(std::chrono::milliseconds(100)), 100, 1 << 20));
        if (!got || got->empty()) continue;
        Batch<Settle> acks;
        for (const auto& d : *got) acks.push_back({d.token, Settle::Do::ack, {}, ""});
        const auto settled =
            run_blocking(consumer->settle(Context().with_timeout(std::chrono::seconds(20)), std::move(acks)));
        const std::lock_guard lock(mutex);
        for (std::size_t i = 0; i < got->size(); ++i) {
          if (settled[i] != Settled::invalid) seen.insert((*got)[i].record.id);
        }
      }
      run_blocking(consumer->close(soon()));
    });
  }
  const auto count = [&] {
    const std::lock_guard lock(mutex);
    return acknowledged.size();
  };
  const auto grows = [&] {
    const std::size_t before = count();
    const auto limit = Clock::now() + std::chrono::seconds(30);
    while (count() < before + 100 && Clock::now() < limit) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_GE(count(), before + 100) << "does not go on";
  };
  grows();
  for (const auto away : {std::chrono::milliseconds(300), std::chrono::milliseconds(3'000)}) {
    proxy.cut(true);
    std::this_thread::sleep_for(away);
    proxy.cut(false);
    grows();
  }
  appending = false;
  threads.clear();
  EXPECT_TRUE(all_seen()) << "acknowledged " << acknowledged.size() << ", seen " << seen.size();
}

TEST_F(KafkaTest, ABrokerThatIsAwayIsSaidToBeAndComesBack) {
  Proxy proxy;
  TestLog log(world.runtime, door("PRISM_TEST_KAFKA_PROXY_LISTEN"));
  must(run_blocking(log->ensure_topic(soon(), {.name = "orders"})));
  proxy.cut(true);
  // In the end at once, and it is known that nothing was sent.
  Error error;
  const auto end = Clock::now() + std::chrono::seconds(30);
  do {
    const auto result =
        run_blocking(log->append(Context().with_timeout(std::chrono::milliseconds(500)), "orders", {record("k", "v")}));
    if (!result[0]) error = result[0].error();
  } while (error.reason != "BACKEND_UNAVAILABLE" && Clock::now() < end);
  EXPECT_EQ(error.reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(error.retry, Retry::safe);
  EXPECT_EQ(reason(run_blocking(log.log->check(Context().with_timeout(std::chrono::seconds(3))))),
            "BACKEND_UNAVAILABLE");
  proxy.cut(false);
  bool back = false;
  while (!back && Clock::now() < end)
    back = run_blocking(log->append(soon(), "orders", {record("k", "v")}))[0].has_value();
  EXPECT_TRUE(back);
  EXPECT_EQ(reason(run_blocking(log.log->check(soon()))), "ok");
}

}  // namespace
}  // namespace prism::kafka
