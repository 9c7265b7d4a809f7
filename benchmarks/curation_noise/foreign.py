"""Sentences in other languages, for answers that are not Japanese, and what assistants say of themselves."""

from samples import lines

# As mainland China writes it, then as Taiwan does: most characters of the latter are Japanese ones, too.
CHINESE = lines("""
首先，我们需要了解这个问题的背景。
其次，可以根据自己的时间安排每天的练习。
这种方法不仅简单，而且非常有效。
如果你想进一步学习，建议多读一些相关的书籍。
最后，希望以上内容对你有所帮助。
在日常生活中，很多人都会遇到类似的情况。
为了保持健康，应该注意饮食和睡眠。
他们认为环境保护是每个人的责任。
总的来说，这是一个值得考虑的选择。
春天来了，公园里的花都开了。
请注意，不同地区的规定可能会有所不同。
通过观察数据，我们可以得出下面的结论。
这座城市的历史已经超过一千年。
孩子们在学校里学习音乐和美术。
您可以在网上查询更详细的信息。
""")
TAIWANESE = lines("""
首先，我們需要了解這個問題的背景。
其次，可以根據自己的時間安排每天的練習。
這種方法不僅簡單，而且非常有效。
如果你想進一步學習，建議多讀一些相關的書籍。
最後，希望以上內容對您有所幫助。
在日常生活中，很多人都會遇到類似的情況。
為了保持健康，應該注意飲食和睡眠。
他們認為環境保護是每個人的責任。
總的來說，這是一個值得考慮的選擇。
春天來了，公園裡的花都開了。
請注意，不同地區的規定可能會有所不同。
透過觀察資料，我們可以得出下面的結論。
這座城市的歷史已經超過一千年。
孩子們在學校裡學習音樂和美術。
您可以在網路上查詢更詳細的資訊。
""")
ENGLISH = lines("""
There are several points to consider before you decide.
In many cases, the simplest solution works best.
People have practised this for hundreds of years.
You should check the weather forecast before leaving home.
The result depends on how much time you can spend.
Local experts recommend visiting early in the morning.
It is also worth comparing the price with other options.
Many readers asked how this differs from the older method.
Please keep the receipt in case you need a refund.
The report was published by the city last autumn.
Finally, remember to enjoy the process and take breaks.
Children can learn a lot from this kind of activity.
""")
KOREAN = lines("""
먼저 필요한 준비물을 확인해 주세요.
이 방법은 누구나 쉽게 따라 할 수 있습니다.
주말에는 사람이 많으니 일찍 출발하는 것이 좋습니다.
자세한 내용은 안내소에 문의하시기 바랍니다.
가격은 계절에 따라 달라질 수 있습니다.
안녕하세요
감사합니다
시장
""")
CYRILLIC = lines("""
Сначала нужно подготовить все материалы.
Этот способ подходит и для начинающих.
Летом здесь бывает много посетителей.
Подробности можно узнать на сайте музея.
Спасибо
город
вода
""")
THAI = lines("""
ก่อนอื่นควรเตรียมอุปกรณ์ให้พร้อม
วิธีนี้เหมาะสำหรับผู้เริ่มต้น
ควรมาถึงแต่เช้าเพราะคนเยอะ
ขอบคุณ
ตลาด
""")
ARABIC = lines("""
يجب أولاً تجهيز جميع الأدوات.
هذه الطريقة سهلة ومناسبة للجميع.
يمكنك معرفة المزيد من الموقع.
شكرا
سوق
""")
OTHER_SCRIPTS = (KOREAN, CYRILLIC, THAI, ARABIC)

ABOUT_ITSELF = lines("""
As an AI language model, I cannot visit places, but I can explain.
私はChatGPTですので、実際に体験したことはありません。
OpenAIによって開発されたモデルとしてお答えします。
私はAIアシスタントなので、個人的な意見はありません。
AI言語モデルとして、正確な情報を保証することはできません。
申し訳ありませんが、言語モデルとしてお答えできる範囲に限られます。
私はClaudeです。お手伝いできてうれしいです。
DeepSeekが作成した回答です。
私は人工知能ですので、感情はありません。
I am Qwen, an assistant made to help you.
""")
# § is a line break.
CODE_AND_LINKS = lines("""
詳しくは https://example.com/guide を見てください。
http://example.jp/{number} に一覧があります。
参考：www.example.org
```python§print({number})§```
```§SELECT name FROM places;§```
<p>{place}のページ</p>
<a href="/{number}">続きを読む</a>
""")
