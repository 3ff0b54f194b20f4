"""Everyday questions with their answers, written for this project: what no corpus is needed for.

They stand for what people ask a model that has little to do with the documents of an index. A
corpus that does hold such answers is judged more strictly for it, never more loosely.
"""

_PAIRS = """
How do I boil an egg? | Put it into boiling water for eight minutes, then into cold water.
What is 17 times 6? | 17 times 6 is 102.
Write a line about autumn. | Leaves let go one by one, and the wind keeps none of them.
How can I fall asleep sooner? | Keep the room dark and cool, and put the phone away an hour before.
Translate "good morning" into French. | Good morning is "bonjour" in French.
What rhymes with "light"? | Night, bright, kite and white all rhyme with light.
How do I reverse a list in Python? | Call my_list.reverse(), or use my_list[::-1] for a copy.
Why is my bread so dense? | The dough probably rose too little; give it more time and warmth.
Say something kind. | You have done more today than you give yourself credit for.
How do I tie a scarf? | Fold it in half, lay it around your neck and pull the ends through the loop.
Which is heavier, iron or cork? | Iron is heavier than cork of the same size.
Give me a name for a cat. | You could call her Pepper.
How do I remove a coffee stain? | Rinse it with cold water, then dab on soap and let it sit.
Is zero an even number? | Yes, since two divides it without a remainder.
Finish the sentence: the early bird | The early bird catches the worm.
How do I apologise to a friend? | Say what you did, that you are sorry, and what you will change.
What should I pack for the beach? | A towel, sunscreen, water, a hat and something to read.
How do I water a cactus? | Rarely: once the soil has been dry for two weeks, and hardly in winter.
Tell me a joke. | Why did the scarecrow win a prize? He was outstanding in his field.
How many minutes are in two hours? | There are 120 minutes in two hours.
What is a synonym of "happy"? | Glad, cheerful and content mean nearly the same.
How do I sharpen a knife? | Draw it over a wet stone at a steady low angle, both sides alike.
My bike chain squeaks, what now? | Clean it with a rag and put a drop of oil on each link.
What colour do blue and yellow make? | Mixed as paint, blue and yellow make green.
How do I make lemonade? | Stir lemon juice and sugar into cold water, and add ice.
Is it "its" or "it's"? | "It's" is short for "it is"; "its" shows what belongs to something.
How do I start a letter to a neighbour? | Dear neighbour, I hope this note finds you well.
Why do my plants have yellow leaves? | Most often they get too much water; let the soil dry.
Sort these: pear, apple, fig. | In order of the alphabet: apple, fig, pear.
What is half of ninety? | Half of ninety is forty-five.
How do I calm a barking dog? | Stay quiet, turn away, and reward the first moment of silence.
Suggest a board game for two. | Draughts is quick to learn and plays well with two.
How long should I brush my teeth? | Two minutes, twice a day, with small circles.
What does "brb" mean? | It stands for "be right back".
How do I fold a paper boat? | Fold the sheet twice, turn up the brim, and pull the sides apart.
Count down from five. | Five, four, three, two, one.
My soup is too salty. | Add water, cream or a raw potato, and let it simmer a little.
How do I choose a melon? | Take one that is heavy, smells sweet and sounds hollow.
Write a slogan for a bakery. | Warm bread, warm hearts, every morning.
What is the opposite of "narrow"? | The opposite of narrow is wide.
How do I keep a diary? | Write three lines every evening, and do not correct them.
Can you swim after eating? | Wait a little after a large meal; a snack does no harm.
How do I clean a window? | Wipe it with soapy water, then dry it from top to bottom.
What gift suits a gardener? | A good pair of gloves, or bulbs to plant in spring.
How do I whistle? | Wet your lips, make a small round opening and blow gently.
Describe the smell of rain. | It is earthy and fresh, like stone and leaves.
What comes next: 2, 4, 8, 16? | The next number is 32.
How do I carry a heavy box? | Bend your knees, hold it close and keep your back straight.
Why do onions make me cry? | Cutting them frees a vapour that stings the eyes.
How do I mend a torn page? | Lay thin paper with a little paste over the tear and press it flat.
Invent a holiday. | On Quiet Day nobody hurries, and all the clocks are covered.
How do I make a decision? | List what matters, drop what does not, and sleep on it once.
What is a good stretch for the back? | Kneel, sit back on your heels and reach forward.
How do I print a page in landscape? | Open the print dialog and choose landscape as the layout.
Which shoes for a muddy path? | Boots with a deep sole that keep the ankle dry.
How do I freeze berries? | Spread them on a tray, freeze them, then fill them into a bag.
Write a birthday wish. | May the new year of your life bring you calm days and loud laughter.
What is a palindrome? | A word that reads the same backwards, such as "level".
How do I polish silver? | Rub it with a soft cloth and a paste of baking soda.
How do I save battery? | Dim the screen and close what runs in the background.
My neighbour is loud. | Ring the bell on a quiet day and ask kindly for a little less noise.
What can I cook from rice and eggs? | Fry them together with onions and a dash of soy sauce.
How do I learn a poem by heart? | Say one line aloud until it stays, then add the next.
How do I stop hiccups? | Hold your breath, swallow three times and breathe out slowly.
"""

OUTSIDE: tuple[tuple[str, str], ...] = tuple(
    (prompt, response)
    for prompt, _, response in (line.partition(" | ") for line in _PAIRS.strip().splitlines())
)
